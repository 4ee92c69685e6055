// The explorer: from class features to pseudo labels, on the data of explorer_data.js. First the method, then the page.
//
// The arithmetic is that of the package: float32 after each step, as in NumPy. Sums over scales and the bilinear
// upsampling are computed in double precision, then rounded to float32. tests/test_explorer.py compares it with safn.
"use strict";

// --- The method ------------------------------------------------------------------------------------------------------

const IGNORED = 255; // the ignore label
const float32 = Math.fround;

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function floats(base64) {
  return new Float32Array(bytes(base64).buffer);
}

// The arrays of a photograph. S scales, N classes (those of its labels), maps of h x w, a picture of H x W.
function decode(stored) {
  return {
    ...stored,
    features: floats(stored.features), // F: S x N x h x w
    weights: floats(stored.weights), // W of Eq. 1: S x h x w
    saliency: Float32Array.from(bytes(stored.saliency), (byte) => byte / 255), // S of Eq. 5: H x W in 0..1
    segmentation: bytes(stored.segmentation), // class ids, H x W
    truth: stored.truth && bytes(stored.truth), // class ids, H x W, where there is a ground-truth mask
  };
}

// Weights of the scales at each pixel for class c, S x h x w. The learned weights are the same for all classes.
function scaleWeights(photo, choice, c) {
  const size = photo.h * photo.w;
  const means = photo.scales.map((_, s) => mean(photo.weights.subarray(s * size, (s + 1) * size)));
  return photo.weights.map((learned, position) => {
    const [s, i] = [Math.floor(position / size), position % size];
    if (choice === "learned") return learned;
    if (choice === "mean") return means[s];
    if (choice === "equal") return 1 / photo.scales.length;
    if (choice === "max") return largestScale(photo, c, i) === s ? 1 : 0;
    return Number(choice) === s ? 1 : 0; // one scale alone
  });
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Maximum pooling is Eq. 2 with weight 1 for the scale whose feature is largest.
function largestScale(photo, c, i) {
  let best = 0;
  for (let s = 1; s < photo.scales.length; s++) {
    if (feature(photo, s, c, i) > feature(photo, best, c, i)) best = s;
  }
  return best;
}

function feature(photo, s, c, i) {
  return photo.features[(s * photo.classes.length + c) * photo.h * photo.w + i];
}

// Eq. 2: MSF_c, the features of class c summed over the scales with their weights, h x w.
function fuse(photo, weights, c) {
  const size = photo.h * photo.w;
  const fused = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let s = 0; s < photo.scales.length; s++) sum += weights[s * size + i] * feature(photo, s, c, i);
    fused[i] = sum;
  }
  return fused;
}

// Eq. 4: M_c = ReLU(MSF_c) / max(ReLU(MSF_c)), h x w in 0..1. A constant map locates nothing and becomes 0.
function localizationMap(fused) {
  const positive = fused.map((value) => Math.max(0, value));
  const peak = Math.max(...positive);
  const varied = peak > Math.min(...positive);
  return positive.map((value) => (varied ? value / peak : 0));
}

// Bilinear upsampling from h x w to H x W, as PyTorch's interpolate with align_corners=False.
function upsample(map, h, w, H, W) {
  const [rows, columns] = [neighbours(h, H), neighbours(w, W)];
  const large = new Float32Array(H * W);
  for (let y = 0; y < H; y++) {
    const [top, bottom, down] = rows[y];
    for (let x = 0; x < W; x++) {
      const [left, right, across] = columns[x];
      const above = (1 - across) * map[top * w + left] + across * map[top * w + right];
      const below = (1 - across) * map[bottom * w + left] + across * map[bottom * w + right];
      large[y * W + x] = (1 - down) * above + down * below;
    }
  }
  return large;
}

// For each of `large` positions: its two neighbours among `small` ones, and the weight of the second.
function neighbours(small, large) {
  return Array.from({ length: large }, (_, position) => {
    const source = Math.max(0, ((position + 0.5) * small) / large - 0.5);
    const first = Math.floor(source);
    return [first, Math.min(first + 1, small - 1), source - first];
  });
}

// Eq. 5: H_c = 2 / (1 / M_c + 1 / S), and 0 where either is 0.
function harmonicMean(map, saliency) {
  return map.map((m, i) => {
    const total = float32(m + saliency[i]);
    return total > 0 ? float32(2 * m * saliency[i]) / total : 0;
  });
}

// Algorithm 1 and the two ignore rules: what decides pixel i.
function decide(confidences, saliency, settings, i) {
  const high = float32(settings.ignoreConfidence);
  if (confidences.filter((H) => H[i] > high).length > 1) return "two classes"; // rule (ii)
  if (confidences.some((H) => H[i] >= float32(settings.gamma))) return "class";
  return saliency[i] > float32(settings.ignoreSaliency) ? "salient" : "background"; // rule (i)
}

// Which of the maps is largest at pixel i, by its position.
function largest(maps, i) {
  let best = 0;
  for (let c = 1; c < maps.length; c++) if (maps[c][i] > maps[best][i]) best = c;
  return best;
}

// Everything that follows from the settings. Its maps, confidences and ids are those of the labelled classes.
function compute(photo, settings) {
  const { h, w, H, W, saliency } = photo;
  const present = settings.labels.split(",").filter(Boolean).map((name) => photo.classes.indexOf(name));
  const fused = present.map((c) => fuse(photo, scaleWeights(photo, settings.weights, c), c));
  const maps = fused.map((features) => upsample(localizationMap(features), h, w, H, W));
  const confidences = maps.map((map) => harmonicMean(map, saliency));
  const winner = (i) => photo.ids[present[largest(maps, i)]];
  const pseudo = saliency.map((_, i) => {
    const rule = decide(confidences, saliency, settings, i);
    return { class: winner(i), background: 0 }[rule] ?? IGNORED;
  });
  const reaches = (i) => maps.some((map) => map[i] >= float32(settings.threshold));
  const alone = saliency.map((_, i) => (reaches(i) ? winner(i) : 0)); // the mask of the maps without saliency
  return { present, maps, confidences, pseudo: Uint8Array.from(pseudo), alone: Uint8Array.from(alone) };
}

// Mean IoU over the classes of a mask and its truth. `ignored`: drop, background or wrong, as in safn.ConfusionMatrix.
function meanIoU(mask, truth, ignored) {
  const [hits, unions] = [new Array(256).fill(0), new Array(256).fill(0)];
  truth.forEach((target, i) => {
    if (target === IGNORED || (mask[i] === IGNORED && ignored === "drop")) return;
    const found = mask[i] === IGNORED && ignored === "background" ? 0 : mask[i];
    unions[target]++;
    if (found === target) hits[target]++;
    else if (found !== IGNORED) unions[found]++;
  });
  return mean(hits.map((hit, id) => hit / unions[id]).filter((iou) => !Number.isNaN(iou)));
}

// What the page says about a mask: shares in 0..1, NaN without a ground-truth mask. photo.first: before any change.
function readings(photo, mask) {
  const share = (condition) => mask.filter(condition).length / mask.length;
  const iou = (ignored) => (photo.truth ? meanIoU(mask, photo.truth, ignored) : NaN);
  return {
    drop: iou("drop"),
    background: iou("background"),
    wrong: iou("wrong"),
    ignored: share((id) => id === IGNORED),
    changed: share((id, i) => id !== photo.first[i]),
  };
}

// --- The page --------------------------------------------------------------------------------------------------------

const RULES = {
  class: (name) => `${name}. Its map is the largest, and its confidence reaches γ.`,
  background: () => "background. No confidence reaches γ, and the saliency is not high.",
  salient: () => "ignored, rule (i). No confidence reaches γ, but the saliency is high.",
  "two classes": () => "ignored, rule (ii). At least two classes have high confidence.",
};
const OPACITY = 170; // of 255
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };


const percent = (part) => (Number.isNaN(part) ? "" : `${(100 * part).toFixed(1)} %`);
const rgb = (colours, number) => `rgb(${colours.subarray(3 * number, 3 * number + 3)})`;

// Colours of the pixels, as red, green, blue: of values in 0..1, and of class ids.
function tinted(values, heat) {
  return values && ((i) => heat.subarray(3 * Math.round(255 * values[i])));
}

function coloured(mask, palette) {
  return (i) => (mask[i] ? palette.subarray(3 * mask[i]) : undefined);
}

class Explorer {
  constructor(form, data) {
    this.form = form;
    this.heat = bytes(data.heat);
    this.palette = bytes(data.palette);
    this.names = data.names;
    this.photos = Object.fromEntries(data.photographs.map((stored) => [stored.id, decode(stored)]));
    this.find(".photographs").innerHTML += data.photographs.map(thumbnail).join("");
    const colours = [0, 51, 102, 153, 204, 255].map((value) => rgb(this.heat, value));
    this.find(".bar").style.background = `linear-gradient(to right, ${colours})`;
    for (const photo of Object.values(this.photos)) photo.first = this.pseudoLabels(photo);
    this.listen();
    this.readAddress();
    this.fillAnswers();
    form.hidden = false;
  }

  find(selector) {
    return this.form.querySelector(selector);
  }

  all(selector) {
    return [...this.form.querySelectorAll(selector)];
  }

  listen() {
    this.form.addEventListener("input", ({ target }) => {
      if (target.name === "photograph") this.choosePhoto();
      else this.update();
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.choosePhoto())); // after the controls are reset
    window.addEventListener("hashchange", () => this.readAddress());
    for (const canvas of this.all("canvas")) {
      canvas.addEventListener("click", (event) => this.click(event));
      canvas.addEventListener("keydown", (event) => this.step(event));
    }
  }

  // explorer.html#photograph=dog&gamma=0.5 sets these controls.
  readAddress() {
    const wanted = [...new URLSearchParams(location.hash.slice(1))];
    for (const choose of [() => this.choosePhoto(), () => this.update()]) {
      for (const [name, value] of wanted) {
        const control = this.form.elements.namedItem(name);
        if (control) control.value = value;
      }
      choose(); // the labels that can be chosen depend on the photograph
    }
  }

  settings() {
    return Object.fromEntries(new FormData(this.form));
  }

  // The pseudo labels of a photograph with these settings; those not given are as before anything was moved.
  pseudoLabels(photo, given = {}) {
    const sliders = this.all("[type=range]").map((slider) => [slider.name, slider.defaultValue]);
    const first = { labels: photo.choices[0], weights: "learned", ...Object.fromEntries(sliders) };
    return compute(photo, { ...first, ...given }).pseudo;
  }

  choosePhoto() {
    this.photo = this.photos[this.settings().photograph];
    const { W, H, photo, choices, title, credit, truth } = this.photo;
    this.form.elements.labels.innerHTML = choices.map(option).join("");
    for (const picture of this.all("figure img")) picture.src = photo;
    for (const canvas of this.all("canvas")) [canvas.width, canvas.height] = [W, H];
    this.find("[data-shows=truth]").classList.toggle("absent", !truth);
    this.find(".credit").textContent = `${title}. ${credit}`;
    this.pixel = [Math.floor(W / 2), Math.floor(H / 2)];
    this.update();
  }

  update() {
    this.result = compute(this.photo, this.settings());
    const { labels, shown } = this.form.elements;
    const [before, names] = [shown.value, labels.value.split(",")];
    shown.innerHTML = names.map(option).join("");
    if (names.includes(before)) shown.value = before;
    for (const slider of this.all("[type=range]")) slider.nextElementSibling.value = Number(slider.value).toFixed(2);
    this.showScores();
    this.showLegend();
    this.showPixel();
  }

  showScores() {
    const { photo, result } = this;
    const masks = {
      pseudo: readings(photo, result.pseudo),
      alone: readings(photo, result.alone),
      segmentation: readings(photo, photo.segmentation),
    };
    for (const cell of this.all("td[data-reading]")) {
      cell.textContent = percent(masks[cell.dataset.mask][cell.dataset.reading]);
    }
  }

  showLegend() {
    const { photo, result, palette } = this;
    const ids = new Set([...result.pseudo, ...result.alone, ...photo.segmentation, ...(photo.truth ?? [])]);
    const patch = (id) => `<i style="background: ${rgb(palette, id)}"></i>${this.names[id] ?? "ignored"}`;
    this.find(".legend span").innerHTML = [...ids].filter(Boolean).map(patch).join("");
  }

  showPixel() {
    const { photo, pixel } = this;
    const { present, maps, confidences } = this.result;
    const i = pixel[1] * photo.W + pixel[0];
    const rule = decide(confidences, photo.saliency, this.settings(), i);
    const winner = photo.classes[present[largest(maps, i)]];
    this.find(".why").textContent = `Pixel (${pixel.join(", ")}): ${RULES[rule](winner)}`;
    const values = (k) => [maps[k][i], photo.saliency[i], confidences[k][i]].map((value) => value.toFixed(2));
    const line = (c, k) => `<tr><td>${[photo.classes[c], ...values(k)].join("</td><td>")}</td></tr>`;
    this.find(".values").innerHTML = present.map(line).join("");
    this.draw();
  }

  draw() {
    const { photo, result, heat, palette } = this;
    const { shown, scale, weights } = this.settings();
    const { h, w, H, W } = photo;
    const c = Math.max(0, photo.classes.indexOf(shown)); // without a label: any, the learned weights are those of all
    const k = result.present.indexOf(c);
    const weight = scaleWeights(photo, weights, c).slice(scale * h * w, (Number(scale) + 1) * h * w);
    const colours = {
      pseudo: coloured(result.pseudo, palette),
      truth: photo.truth && coloured(photo.truth, palette),
      map: tinted(result.maps[k], heat),
      saliency: tinted(photo.saliency, heat),
      confidence: tinted(result.confidences[k], heat),
      weights: tinted(upsample(weight, h, w, H, W), heat),
      alone: coloured(result.alone, palette),
      segmentation: coloured(photo.segmentation, palette),
    };
    for (const figure of this.all("figure")) {
      paint(figure.querySelector("canvas"), colours[figure.dataset.shows], this.pixel);
    }
  }

  click({ target, clientX, clientY }) {
    const { left, top, width, height } = target.getBoundingClientRect();
    const [x, y] = [(clientX - left) / width, (clientY - top) / height];
    this.choosePixel(Math.floor(x * this.photo.W), Math.floor(y * this.photo.H));
  }

  // An arrow key moves the pixel by one, with Shift by ten.
  step(event) {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [right, down] = ARROWS[event.key];
    const far = event.shiftKey ? 10 : 1;
    this.choosePixel(this.pixel[0] + far * right, this.pixel[1] + far * down);
  }

  choosePixel(x, y) {
    const { W, H } = this.photo;
    this.pixel = [Math.min(W - 1, Math.max(0, x)), Math.min(H - 1, Math.max(0, y))];
    this.showPixel();
  }

  // In the text, <output data-settings="photograph=dog&gamma=0.5" data-value="changed"> gets that value.
  fillAnswers() {
    for (const output of document.querySelectorAll("output[data-settings]")) {
      const given = Object.fromEntries(new URLSearchParams(output.dataset.settings));
      const photo = this.photos[given.photograph];
      output.value = percent(readings(photo, this.pseudoLabels(photo, given))[output.dataset.value]);
    }
  }
}

function option(value) {
  return `<option value="${value}">${value.replaceAll(",", ", ") || "none"}</option>`;
}

function thumbnail(photo, number) {
  const choice = `<input type="radio" name="photograph" value="${photo.id}" ${number ? "" : "checked"}>`;
  return `<label>${choice}<img src="${photo.photo}" alt="${photo.title}" title="${photo.title}"></label>`;
}

// Lay colours over the grey photograph, and a ring around the chosen pixel.
function paint(canvas, colour, [x, y]) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; colour && i < canvas.width * canvas.height; i++) {
    const rgb = colour(i);
    if (rgb) image.data.set([rgb[0], rgb[1], rgb[2], OPACITY], 4 * i);
  }
  context.putImageData(image, 0, 0);
  for (const [style, width] of [["black", 4], ["white", 2]]) {
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, 6, 0, 2 * Math.PI);
    [context.strokeStyle, context.lineWidth] = [style, width];
    context.stroke();
  }
}

if (typeof document !== "undefined") {
  document.addEventListener("DOMContentLoaded", () => {
    if (typeof EXPLORER === "undefined") document.getElementById("explorer-missing").hidden = false;
    else new Explorer(document.getElementById("explorer"), EXPLORER);
  });
}
