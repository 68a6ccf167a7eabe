/** The few things that the modules do with the document. Text from the server comes in as text only. */

/** Return the element with an id of index.html. */
export function find(id) {
  return document.getElementById(id);
}

/** Return a new element: its properties, its attributes (those with a dash, and `role`), its children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "role" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Return a new SVG element with these attributes. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Return the icon with a name of index.html. */
export function icon(name) {
  return draw("svg", { class: "icon", "aria-hidden": "true" }, draw("use", { href: `#icon-${name}` }));
}

/** Write a text if it is another one. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell a screen reader what happened. */
export function announce(text) {
  write(find("announcer"), text);
}

/** Do something once before the next frame is painted, however often it is asked. */
export function oncePerFrame(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      action();
    });
  };
}

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** Return whether the visitor asked for less motion. */
export function prefersStillness() {
  return stillness.matches;
}
