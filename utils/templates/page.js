"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const method = find("method"), given = find("given"), copied = find("copied");

  function shownTiles() {
    const view = [...document.querySelectorAll("[data-method]")].find((v) => !v.hidden);
    return view ? [...view.querySelectorAll("[data-given]")].filter((tile) => !tile.hidden) : [];
  }

  function update() {
    for (const view of document.querySelectorAll("[data-method]")) {
      view.hidden = view.dataset.method !== method.value;
      for (const tile of view.querySelectorAll("[data-given]"))
        tile.hidden = given.value !== "" && tile.dataset.given !== given.value.slice(1);
      for (const gallery of view.querySelectorAll(".gallery"))
        gallery.nextElementSibling.hidden = gallery.querySelector("[data-given]:not([hidden])") !== null;
    }
    copied.textContent = `${shownTiles().length} images shown`;
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
    if (!button) return;
    const files = shownTiles().map((tile) => tile.querySelector("[data-copy]").dataset.copy);
    copy(button.id === "all" ? files.join("\n") : button.dataset.copy, button);
  });
  method.addEventListener("change", update);
  given.addEventListener("change", update);
  find("tools").hidden = false;
  update();
})();
