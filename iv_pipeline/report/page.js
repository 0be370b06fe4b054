"use strict";
// Names that are typed on cluster cards, as the file that the pipeline reads them from.

function csvOf(names) {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = [...names].sort(([a], [b]) => a - b).map(([cluster, name]) => `${cluster},${quoted(name)}`);
  return ["cluster,name", ...rows, ""].join("\n");
}

function save(file, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = file;
  link.click();
  URL.revokeObjectURL(link.href);
}

for (const tools of document.querySelectorAll(".naming-tools")) {
  const fields = [...document.getElementById(tools.dataset.section).querySelectorAll("input[data-cluster]")];
  const elsewhere = Object.entries(JSON.parse(tools.dataset.elsewhere)).map(([c, name]) => [Number(c), name]);
  const status = tools.querySelector("[role=status]");
  let unsaved = false;

  const names = () => {
    const typed = fields.map((field) => [Number(field.dataset.cluster), field.value.trim()]);
    return new Map([...elsewhere, ...typed.filter(([, name]) => name)]);
  };
  const tell = () => {
    const n = names().size;
    status.textContent = `${n} ${n === 1 ? "cluster has" : "clusters have"} a name${unsaved ? ", not saved yet" : ""}.`;
  };

  for (const field of fields) {
    const shown = field.closest(".card").querySelector(".given");
    field.addEventListener("input", () => {
      shown.textContent = field.value.trim() || field.placeholder;
      unsaved = true;
      tell();
    });
    field.closest(".naming").hidden = false;
  }
  tools.querySelector("button").addEventListener("click", () => {
    save(tools.dataset.file, csvOf(names()));
    unsaved = false;
    tell();
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
  tools.hidden = false;
  tell();
}
