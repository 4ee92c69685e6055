# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # SAFN in 25 lines
#
# How does a network that was never shown a mask make one?
#
# Here is the method on one photograph, with a trained network that comes with the package. Each equation is written out
# by hand: 25 lines of code, in seven steps.
#
# Paper: Sec. III. Why it works: [the method](../book/method.md). The package's own code: [`safn`](../book/api_safn.md).

# %%
import numpy as np
import torch
from torch.nn import functional as F

import safn
from safn.backbones import rescale
from safn.datasets.free_photographs import free_photographs
from safn.images import load_image, load_mask
from safn.loading import resize_long
from safn.saliency import U2NetP, multi_view_saliency

# %% tags=["hide-cell"]
from safn.maps import localization_maps
from safn.network import classification_loss
from safn.pseudo import harmonic_mean
from safn_book import display
from safn_book.galleries import Heat, Mask, gallery

# %% [markdown]
# ## 1 A photograph and its label
#
# The network is a SAFN that was trained on 1,631 photographs of VOC 2012, with image labels only. This photograph is
# not one of them. Its label is *dog*.

# %%
photograph = free_photographs()["dog"]
picture = load_image(photograph.path)
network = safn.load("voc-safn").requires_grad_(False)
image = network.normalisation(resize_long(picture, 288))[None]
labels = [float(name in photograph.labels) for name in network.classes]
y = torch.tensor([labels])

image.shape, y.shape

# %% [markdown]
# The image is a batch of one, $(1, 3, H, W)$. The vector $y$ holds 1 for *dog* and 0 for the other 19 classes.

# %% tags=["hide-input"]
dog = network.classes.index("dog")
display.figure(
    gallery([{"photograph": picture}], network.classes),
    f"The photograph: {photograph.shows}, by {photograph.author} ({photograph.licence}).",
    "A German shepherd dog stands on grass, seen from the side, and fills most of the photograph.",
)

# %% [markdown]
# ## 2 Features at three scales
#
# The image goes through the same backbone and head at scales 1, 0.75 and 0.5. Smaller images give smaller features, so
# all are brought to the size of the largest.

# %%
resized = [rescale(image, scale) for scale in network.scales]
features = [network.head(network.backbone(small)) for small in resized]
size = features[0].shape[-2:]
features = [F.interpolate(f, size, mode="bilinear") for f in features]
features = torch.stack(features, 1)

features.shape

# %% [markdown]
# One image, three scales, 20 classes, and maps of 14 × 18 pixels. Each of these stands for 16 × 16 pixels of the image,
# the output stride. Here are the features of *dog*, in one range of colours:

# %% tags=["hide-input"]
of_dog = features[0, :, dog].relu()
shown = {
    f"scale {scale:g}": Heat((found / of_dog.max()).numpy(), picture) for scale, found in zip(network.scales, of_dog)
}
display.figure(
    gallery([{"photograph": picture, **shown}], network.classes),
    "Positive features of the class dog at each scale, divided by the largest of all.",
    "At scale 1 the features are high at the head of the dog. At scale 0.75 they are lower. "
    "At scale 0.5 they are high over its front half and spread beyond the dog.",
)

# %% [markdown]
# Scale 1 responds to the head, the telling part. Scale 0.5 responds to the chest and the back as well, and spills over
# the outline. This is the idea of the paper: in a smaller image the network sees more of a large object.
#
# ## 3 A weight for each scale and pixel
#
# Scale attention is two convolutions. They give scale $s$ a score $A^s_{ij}$ at pixel $(i, j)$. A softmax over the
# scales makes weights of the scores:
#
# $$W^s_{ij} = \frac{\exp(A^s_{ij})}{\sum_{k=1}^{S} \exp(A^k_{ij})} \tag{1}$$

# %%
A = network.attention.conv1(features.flatten(1, 2))
A = network.attention.conv2(F.relu(A))
W = A.exp() / A.exp().sum(1, keepdim=True)

W.shape

# %% tags=["hide-input"]
shown = {f"weight of scale {scale:g}": Heat(weight.numpy()) for scale, weight in zip(network.scales, W[0])}
display.figure(
    gallery([{"photograph": picture, **shown}], network.classes),
    "The weights of Eq. 1. They sum to 1 at each pixel.",
    "The weight of scale 1 is near 1 inside the photograph and lower along its border. "
    "The other two are near 0 inside.",
)

# %% [markdown]
# Each scale has one map of weights, for all classes together. This network trusts the full image almost everywhere, and
# the small ones a little along the border. [Chapter 3](03_train_safn.ipynb) trains such weights.
#
# ## 4 The weighted sum, and the scores
#
# Each scale is multiplied by its weights, and the scales are added:
#
# $$\mathit{MSF}_c = \sum_{k=1}^{S} W^k \circ F^k_c \tag{2}$$
#
# The mean of $\mathit{MSF}_c$ over the image is the score $x_c$. In training, the loss compares $s_c = \sigma(x_c)$ with the
# label, where $\sigma$ is the logistic function:
#
# $$L = -\sum_{c=1}^{N} \big[ y_c \log s_c + (1 - y_c) \log (1 - s_c) \big] \tag{3}$$
#
# In the code, $\sigma(-x_c)$ stands for $1 - s_c$, which is the same.

# %%
MSF = (W.unsqueeze(2) * features).sum(1)
x = MSF.mean((2, 3))
loss = -(y * F.logsigmoid(x) + (1 - y) * F.logsigmoid(-x)).mean()

MSF.shape, x.shape, loss

# %% tags=["remove-input"]
probability, best = x[0].sigmoid().topk(2)
display.text(
    f"The network gives *{network.classes[best[0]]}* the probability "
    f"{probability[0]:.2f} and *{network.classes[best[1]]}* {probability[1]:.2f}. "
    "The loss is the mean over the classes instead of the sum, as in PyTorch."
)

# %% [markdown]
# ## 5 The localization map
#
# Negative values say "not here", so they go to 0. The rest is divided by its maximum. Classes without a label have no
# localization map:
#
# $$M_c = \frac{\mathrm{ReLU}(\mathit{MSF}_c)}{\max(\mathrm{ReLU}(\mathit{MSF}_c))} \tag{4}$$

# %%
positive = MSF.relu() * y[:, :, None, None]
M = positive / positive.amax((2, 3), keepdim=True).clamp_min(1e-12)

M.shape

# %% [markdown]
# ## 6 Saliency, and the confidence
#
# The map knows the class but not the outline. A saliency map has the outline of what stands out, but no class. Its
# detector was trained on masks of other images. The harmonic mean of both is the confidence:
#
# $$H_c(i, j) = \frac{2}{\frac{1}{M_c(i, j)} + \frac{1}{S(i, j)}} \tag{5}$$

# %%
S = multi_view_saliency(U2NetP(), picture)
maps = F.interpolate(M, S.shape, mode="bilinear")[0].numpy()
H = 2 * maps * S / (maps + S).clip(1e-12)

S.shape, maps.shape, H.shape

# %% [markdown]
# ## 7 The pseudo label
#
# Pseudo labels come from Algorithm 1. A pixel is background where no confidence reaches $\gamma = 0.2$. Elsewhere it
# has the class of the largest map. Two kinds of pixels are ignored, with the value 255: background that is salient, and
# pixels that two classes claim.

# %%
G = np.where(H.max(0) < 0.2, 0, 1 + maps.argmax(0)).astype(np.uint8)
G[(G == 0) & (S > 0.06)] = 255
G[(H > 0.9).sum(0) > 1] = 255

G.shape, np.unique(G)

# %% tags=["hide-input"]
truth = load_mask(photograph.mask)
display.figure(
    gallery(
        [
            {
                "localization map M": Heat(maps[dog], picture),
                "saliency S": Heat(S),
                "confidence H": Heat(H[dog], picture),
                "pseudo label G": Mask(G, picture),
                "ground truth": Mask(truth, picture),
            }
        ],
        network.classes,
    ),
    "From the map to the pseudo label (Eq. 4, Eq. 5, Algorithm 1). The ground truth was "
    "drawn by hand for this project.",
    "The map is bright at the head and spills over the outline. The saliency shows the whole "
    "dog. The confidence has both. The pseudo label is the dog with its front paws ignored.",
)

# %% tags=["remove-input"]
counts = safn.ConfusionMatrix(len(network.classes) + 1)
counts.update(G, truth)
display.text(
    "The overlap with the drawn dog, divided by the union of both (the IoU), is "
    f"{100 * counts.iou('drop')[dog + 1]:.0f} % where the pseudo label is not ignored. It "
    f"ignores {100 * (G == 255).mean():.0f} % of the photograph. What the map misses and the "
    "saliency finds is ignored, not called background."
)

# %% [markdown]
# A segmentation network learns from many such labels ([chapter 6](06_train_segmentation.ipynb)).
#
# ## The package computes the same
#
# On this photograph its functions agree with the lines above:

# %%
assert torch.allclose(features, network.scale_features(image))
assert torch.allclose(x, network(image))
assert torch.allclose(W, network.scale_weights)
assert torch.allclose(loss, classification_loss(x, y))
assert torch.allclose(M, localization_maps(MSF, y))
assert np.allclose(H, harmonic_mean(maps, S))
package = safn.pseudo_ground_truth(maps, S, y[0], ignore_saliency=0.06)
assert (package == G).all()
print("equal")

# %% [markdown]
# ## Takeaways
#
# - SAFN is a classifier that keeps its class features as maps. No step needs a mask of a training image.
# - The scales meet in Eq. 1 and 2. Everything else works with one scale as well.
# - The saliency gives the outline. The map only has to find the class.
#
# ## Exercises
#
# 1. Give all scales the same weight. What happens to the map?
#
# <details><summary>Solution</summary>
#
# ```python
# equal = localization_maps(features.mean(1), y)
# equal = F.interpolate(equal, S.shape, mode="bilinear")[0].numpy()
# for found in (maps[dog], equal[dog]):
#     print((found[truth == dog + 1] > 0.5).mean(), (found[truth == 0] > 0.5).mean())
# ```
# With the learned weights the map is above 0.5 on 53 % of the dog, with equal weights on 69 %. But it is so on 17 % of the
# background instead of 7 %. The small scales add object and spill alike.
#
# </details>
#
# 2. Set $\gamma$ to 0.4. Which pixels change?
#
# <details><summary>Solution</summary>
#
# ```python
# strict = safn.pseudo_ground_truth(maps, S, y[0], 0.4, ignore_saliency=0.06)
# for found in (G, strict):
#     print((found == dog + 1).mean(), (found == 255).mean())
# ```
# *Dog* shrinks from 30 % of the photograph to 27 %, and the ignored pixels grow from 3 % to 7 %. What is no longer dog is
# salient, so it is ignored and not called background.
#
# </details>
#
# 3. Add the wrong label *cat*. Does the method notice?
#
# <details><summary>Solution</summary>
#
# ```python
# cat = network.classes.index("cat")
# both = y.clone()
# both[0, cat] = 1
# M2 = F.interpolate(localization_maps(MSF, both), S.shape, mode="bilinear")[0].numpy()
# G2 = safn.pseudo_ground_truth(M2, S, both[0], 0.2, ignore_saliency=0.06)
# (G2 == cat + 1).mean()
# ```
# No: 3 % of the photograph become cat. Eq. 4 divides each map by its own maximum, so a weak class gets a map as strong as
# any other.
#
# </details>
#
# ## Next
#
# [Chapter 0](00_data.ipynb) begins with a whole data set. In a hurry? Read chapters [3](03_train_safn.ipynb),
# [5](05_pseudo_ground_truth.ipynb) and [7](07_evaluate.ipynb). [Try your photograph](17_try_your_photograph.ipynb)
# needs only your file.
