/* What htmx leaves to the page. Parts of it ask for themselves again and again (polls): their
   errors stand apart from those of orders, and go with the next answer. Who does not see a part
   change is told when its state does, and not at every poll. */
(() => {
  "use strict";

  const AWAY = "The service does not answer. What is shown may be out of date; it is asked again.";
  const UNHEARD = "No answer came from the service. Look whether it was done before you ask again.";
  const place = (id) => document.getElementById(id);

  const isPoll = (event) =>
    (event.detail.requestConfig.elt.getAttribute("hx-trigger") || "").startsWith("every");

  const show = (where, text) => {
    if (where.textContent === text) return; // else it would be read out again
    const told = document.createElement("div");
    told.className = "refusal";
    told.textContent = text;
    where.replaceChildren(...(text ? [told] : []));
  };

  const said = (xhr) => {
    const answer = new DOMParser().parseFromString(xhr.responseText, "text/html");
    const refusal = answer.querySelector(".refusal");
    return refusal ? refusal.textContent.trim() : `The service answers with the error ${xhr.status}.`;
  };

  const tell = () => {
    const text = [...document.querySelectorAll("[data-told]")].map((part) => part.dataset.told).join(". ");
    const told = place("told");
    if (told.textContent !== text) told.textContent = text;
  };

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!isPoll(event)) {
      if (!event.detail.isError) place("alert").replaceChildren();
    } else if (event.detail.isError) {
      event.detail.shouldSwap = false;
      show(place("trouble"), said(event.detail.xhr));
    } else {
      show(place("trouble"), "");
    }
  });
  for (const silence of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(silence, (event) =>
      isPoll(event) ? show(place("trouble"), AWAY) : show(place("alert"), UNHEARD));
  }
  document.addEventListener("htmx:afterSettle", tell);
  document.addEventListener("DOMContentLoaded", tell);
})();
