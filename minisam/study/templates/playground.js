// The page around descent.js. `state` is what a link tells; everything on the page follows from it.

const find = (id) => document.getElementById(id);
const { surfaces, methods, step: firstStep } = JSON.parse(find("data").textContent);
const names = methods.map(({ name }) => name);
const map = find("map");
const STEPS = Number(find("step").max);

// ---- Numbers

/** A number as one reads it: three digits, and a true minus. */
const readable = (x) => {
  if (!Number.isFinite(x)) return "diverged";
  const text = x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e4) ? x.toExponential(1) : x.toPrecision(3);
  return text.replace("e+", "e").replaceAll("-", "−");
};

/** A logarithmic slider stops at all numbers with two digits: 90 to a power of ten, from 0.0001. */
const LOG = {
  rate: (position) => Number(`${10 + (position % 90)}e${Math.floor(position / 90) - 5}`),
  position: (rate) => {
    const [digits, exponent] = rate.toExponential(1).split("e").map(Number);
    return 90 * (exponent + 4) + Math.round(10 * digits) - 10;
  },
};
const LINEAR = { rate: Number, position: Number };

const sliders = [...document.querySelectorAll("[data-rate]")].map((input) => {
  const { min, max, dataset } = input;
  const scale = dataset.scale === "log" ? LOG : LINEAR;
  const slider = { input, name: dataset.rate, scale, low: Number(min), high: Number(max) };
  [input.min, input.max] = [scale.position(slider.low), scale.position(slider.high)];
  return slider;
});

// ---- The state, and the address that tells it

const initial = (surface) => ({ surface, start: surface.start, ...surface.rates, run: names, step: firstStep });

/** The state that an address tells: whatever is missing, unknown or out of range is the default. */
const read = (fragment) => {
  const told = new URLSearchParams(fragment);
  const surface = surfaces.find(({ key }) => key === told.get("surface")) ?? surfaces.at(-1);
  const state = initial(surface);
  const within = (text, low, high) => text?.trim() && Number(text) >= low && Number(text) <= high;
  for (const { name, low, high } of sliders) {
    if (within(told.get(name), low, high)) state[name] = Number(told.get(name));
  }
  const [left, right, bottom, top] = surface.extent;
  const [x, y, ...more] = told.get("start")?.split(",") ?? [];
  if (within(x, left, right) && within(y, bottom, top) && !more.length) state.start = [Number(x), Number(y)];
  const run = told.get("run")?.split(",").filter(Boolean);
  if (run?.every((name) => names.includes(name))) state.run = names.filter((name) => run.includes(name));
  if (within(told.get("step"), 0, STEPS)) state.step = Math.round(told.get("step"));
  return state;
};

const address = ({ surface, start, run, step, ...rates }) => {
  const told = sliders.map(({ name }) => `${name}=${rates[name]}`);
  return `#surface=${surface.key}&start=${start}&${told.join("&")}&run=${run}&step=${step}`;
};

let state = read(location.hash.slice(1));
let paths = {}; // by method
let timer = null; // of playing
let settled = null; // of the address and of what is read aloud: both wait until nothing has changed for a moment

/** Change the state, and all that follows from it. */
const change = (part) => {
  state = { ...state, ...part };
  const { surface, start, step } = state;
  const loss = SURFACES[surface.kind](surface);
  paths = Object.fromEntries(names.map((name) => [name, descend(name, loss, start, state, STEPS)]));
  show();
  drawing.paint(surface, loss);
  drawing.draw(state, paths);
  clearTimeout(settled);
  if (timer === null) settled = setTimeout(settle, 250);
};

const settle = () => {
  history.replaceState(null, "", address(state));
  const { start, step, run } = state;
  const losses = run.map((name) => `${name} ${readable(paths[name].losses[step])}`).join(", ");
  find("status").textContent = `Start ${start.join(", ")}. Step ${step}. Loss: ${losses || "no optimizer is chosen"}.`;
};

// ---- The controls

const code = {
  GD: ({ lr }) => `GD(lr=${lr})`,
  Momentum: ({ lr, momentum }) => `Momentum(lr=${lr}, momentum=${momentum})`,
  Adam: ({ adam }) => `Adam(lr=${adam})`,
  SAM: ({ lr, rho }) => `SAM(GD(lr=${lr}), rho=${rho})`,
};

const rows = methods.map((method, i) => {
  const row = find("method").content.cloneNode(true).firstElementChild;
  const box = row.querySelector("input");
  row.querySelector(".name").textContent = method.name;
  box.addEventListener("change", () => {
    change({ run: names.filter((name) => (name === method.name ? box.checked : state.run.includes(name))) });
  });
  find("methods").append(row);
  return { method, i, box, row };
});

/** Write the state into the controls. */
const show = () => {
  for (const { method: { name }, box, row } of rows) {
    box.checked = state.run.includes(name);
    row.querySelector(".value").textContent = box.checked ? readable(paths[name].losses[state.step]) : "";
    row.querySelector("code").textContent = code[name](state);
  }
  for (const { input, name, scale } of sliders) {
    input.value = scale.position(state[name]);
    input.setAttribute("aria-valuetext", state[name]);
    input.parentElement.querySelector(".value").textContent = state[name];
  }
  find("surface").value = state.surface.key;
  find("step").value = state.step;
  find("step-shown").textContent = `${state.step} of ${STEPS}`;
  find("step").setAttribute("aria-valuetext", `${state.step} of ${STEPS}`);
  find("speed-shown").textContent = `${find("speed").value} a second`;
  find("speed").setAttribute("aria-valuetext", `${find("speed").value} steps a second`);
  find("copied").textContent = "";
};

const play = (on) => {
  const advance = () => (state.step < STEPS ? go(state.step + 1) : play(false));
  clearInterval(timer);
  timer = on ? setInterval(advance, 1000 / find("speed").value) : null;
  find("play").textContent = on ? "Pause" : "Play";
  if (!on) change({}); // so that the address follows
};
const go = (step) => change({ step: Math.min(STEPS, Math.max(0, step)) });

for (const { key, title } of surfaces) find("surface").append(new Option(title, key));
find("surface").addEventListener("change", ({ target }) => {
  const surface = surfaces.find(({ key }) => key === target.value);
  change({ ...initial(surface), run: state.run, step: state.step });
});
for (const { input, name, scale } of sliders) {
  input.addEventListener("input", () => change({ [name]: scale.rate(input.value) }));
}
const press = (id, action) => find(id).addEventListener("click", action);
const pauseAt = (step) => {
  play(false);
  go(step);
};
press("rewind", () => pauseAt(0));
press("back", () => pauseAt(state.step - 1));
press("forward", () => pauseAt(state.step + 1));
press("play", () => {
  if (timer === null && state.step === STEPS) go(0);
  play(timer === null);
});
find("step").addEventListener("input", ({ target }) => pauseAt(Number(target.value)));
find("speed").addEventListener("input", () => (timer === null ? show() : play(true)));
press("copy", async () => {
  settle();
  const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  find("copied").textContent = copied ? "Copied." : "Copy it from the address bar.";
  find("status").textContent = find("copied").textContent;
});

// ---- The start: dragged, or moved with the arrow keys

const moveTo = (theta) => {
  const [left, right, bottom, top] = state.surface.extent;
  const inside = (x, low, high) => Number(Math.min(high, Math.max(low, x)).toFixed(2));
  change({ start: [inside(theta[0], left, right), inside(theta[1], bottom, top)] });
};
const drag = (event) => moveTo(drawing.theta(event.offsetX, event.offsetY));
map.addEventListener("pointerdown", (event) => {
  map.setPointerCapture(event.pointerId);
  drag(event);
});
map.addEventListener("pointermove", (event) => map.hasPointerCapture(event.pointerId) && drag(event));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
map.addEventListener("keydown", (event) => {
  if (!(event.key in ARROWS)) return;
  event.preventDefault(); // the page would scroll
  moveTo(plus(state.start, event.shiftKey ? 0.2 : 0.05, ARROWS[event.key]));
});

// ---- The beginning, and what may happen around the page

const restyle = () => {
  drawing.restyle();
  for (const { method, i, row } of rows) drawing.swatch(row.querySelector("canvas"), method, i);
  change({});
};
window.addEventListener("hashchange", () => {
  play(false);
  change(read(location.hash.slice(1)));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
new ResizeObserver(restyle).observe(map);
if (matchMedia("(prefers-reduced-motion: reduce)").matches) find("speed").value = 2;
