"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const method = find("method"), given = find("given"), copied = find("copied");

  function shownFiles() {
    const buttons = document.querySelectorAll("[data-method]:not([hidden]) [data-given]:not([hidden]) [data-copy]");
    return [...new Set([...buttons].map((button) => button.dataset.copy))];
  }

  function update() {
    for (const view of document.querySelectorAll("[data-method]")) {
      view.hidden = view.dataset.method !== method.value;
      for (const tile of view.querySelectorAll("[data-given]"))
        tile.hidden = given.value !== "" && tile.dataset.given !== given.value.slice(1);
      for (const gallery of view.querySelectorAll(".gallery"))
        gallery.nextElementSibling.hidden = gallery.querySelector("[data-given]:not([hidden])") !== null;
    }
    const n = shownFiles().length;
    copied.textContent = n === 1 ? "1 image shown" : `${n} images shown`;
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      copied.textContent = "copied";
    } catch {
      window.prompt("Copy:", text);
    }
    button.focus();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.id === "all") copy(shownFiles().join("\n"), button);
    else if (button?.dataset.copy !== undefined) copy(button.dataset.copy, button);
  });
  method.addEventListener("change", update);
  given.addEventListener("change", update);
  find("tools").hidden = false;
  update();
})();
