// Explanations come before the descriptions of the code, and records last. The numbers are those of Sphinx.
var Scorer = {
  score: ([page, title, anchor, description, score]) => {
    if (/method$/.test(page)) return score + 12;
    if (/glossary|recipes|notebooks\/0|25_lines/.test(page)) return score + 8;
    if (/api_|15_records|emoji_results|profiles|references/.test(page)) return score - 20;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
