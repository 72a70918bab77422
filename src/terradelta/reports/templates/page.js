"use strict";
for (const swipe of document.querySelectorAll(".swipe")) {
  const slide = swipe.querySelector(".slide");
  if (!slide) continue;
  const show = () => {
    swipe.style.setProperty("--at", slide.value + "%");
    slide.setAttribute("aria-valuetext", slide.value + " % before, " + (100 - slide.value) + " % after");
  };
  const follow = (event) => {
    const frame = swipe.getBoundingClientRect();
    slide.value = 100 * (event.clientX - frame.left) / frame.width;
    show();
  };
  slide.addEventListener("input", show);
  swipe.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    swipe.setPointerCapture(event.pointerId);
    slide.focus({ preventScroll: true });
    follow(event);
  });
  for (const kind of ["pointermove", "pointerup"]) {
    swipe.addEventListener(kind, (event) => {
      if (swipe.hasPointerCapture(event.pointerId)) follow(event);
    });
  }
  show();
}

const boxes = [...document.querySelectorAll("input[data-layer]")];
const toggle = (box) => {
  document.getElementById(box.dataset.layer).hidden = !box.checked;
};
for (const box of boxes) {
  box.addEventListener("change", () => toggle(box));
  toggle(box);
}
for (const button of document.querySelectorAll("button[data-all]")) {
  button.addEventListener("click", () => {
    for (const box of boxes) {
      box.checked = button.dataset.all === "true";
      toggle(box);
    }
  });
}

const strength = document.getElementById("strength");
if (strength) {
  strength.addEventListener("input", () => {
    document.querySelector(".layers").style.opacity = strength.value / 100;
  });
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
