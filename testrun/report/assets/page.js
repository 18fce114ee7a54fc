"use strict";
// Everything can be read without this script: it filters, zooms and opens.
(() => {
  const $ = (id) => document.getElementById(id);
  for (const e of document.querySelectorAll(".controls")) e.hidden = false;

  // A link into a closed block opens the blocks around its target.
  const reveal = () => {
    const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let e = target; e; e = e.parentElement) {
      e.classList.remove("hidden");
      if (e.tagName === "DETAILS") e.open = true;
    }
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Zooming keeps the middle of what is seen where it is.
  $("zoom").addEventListener("input", (event) => {
    const scroll = document.querySelector(".scroll");
    const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / scroll.scrollWidth;
    $("picture").setAttribute("width", event.target.value * 100 + "%");
    scroll.scrollLeft = middle * scroll.scrollWidth - scroll.clientWidth / 2;
  });

  // An entry is shown when it matches, and a block also when something in it
  // does.
  const entries = $("entries");
  const search = $("search"), machine = $("machine"), serial = $("serial"), debug = $("debug");
  const apply = () => {
    const text = search.value.toLowerCase();
    const matches = (e) => {
      const c = e.classList;
      if (c.contains("serial") && !serial.checked) return false;
      if ((c.contains("debug") || c.contains("output")) && !debug.checked) return false;
      if (machine.value !== "*" && e.dataset.machine !== machine.value) return false;
      if (!text) return true;
      const own = c.contains("block") ? e.firstElementChild : e;
      return own.textContent.toLowerCase().includes(text);
    };
    const visit = (e) => {
      let inside = false;
      if (e.classList.contains("block"))
        for (const child of e.children)
          if (child.classList.contains("entry") && visit(child)) inside = true;
      const shown = inside || (!e.classList.contains("group") && matches(e));
      e.classList.toggle("hidden", !shown);
      if (inside && text) e.open = true;
      return shown;
    };
    for (const e of entries.children) visit(e);
  };
  let timer;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(apply, 150);
  });
  for (const e of [machine, serial, debug]) e.addEventListener("change", apply);
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  apply();

  const toggle = (open) => () => {
    for (const e of entries.querySelectorAll("details.block:not(.group)")) e.open = open;
  };
  $("open").addEventListener("click", toggle(true));
  $("close").addEventListener("click", toggle(false));
})();
