// The map and what is drawn on it: levels of the loss, axes, paths, and SAM's triangles.

const drawing = (() => {
  const MARGIN = { left: 46, right: 6, top: 6, bottom: 30 }; // of the plot, in CSS pixels, for the axes
  const FLOOR = 0.01; // the lowest level of loss that is drawn
  const LEVELS = 4; // to a power of ten
  const GRID = 3; // pixels between the points where the loss is computed for them
  const pen = map.getContext("2d");
  const colours = {}; // of the page, light or dark
  let view = {}; // where the plot is: its place in CSS pixels, and θ at its corner
  let backdrop = null; // the levels, painted once for a surface and a size

  /** Fit a canvas's pixels to its place on the screen; returns its size in CSS pixels. */
  const fit = (canvas) => {
    const { clientWidth: width, clientHeight: height } = canvas;
    [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    canvas.getContext("2d").setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    return { width, height };
  };

  const restyle = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "soft", "low", "high", "line"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    fit(map);
    backdrop = null;
  };

  /** Show the extent, grown one way to fill the plot: with one scale for both axes gradients cross levels squarely. */
  const place = ([left, right, bottom, top]) => {
    const width = map.clientWidth - MARGIN.left - MARGIN.right;
    const height = map.clientHeight - MARGIN.top - MARGIN.bottom;
    const scale = Math.min(width / (right - left), height / (top - bottom));
    const corner = [(left + right - width / scale) / 2, (bottom + top + height / scale) / 2];
    view = { width, height, scale, corner };
  };
  const theta = (x, y) =>
    [view.corner[0] + (x - MARGIN.left) / view.scale, view.corner[1] - (y - MARGIN.top) / view.scale];
  const FAR = 3000; // pixels: nothing is drawn between points farther away, where diverging paths have endless dashes
  const pixel = ([a, b]) =>
    [MARGIN.left + (a - view.corner[0]) * view.scale, MARGIN.top + (view.corner[1] - b) * view.scale]
      .map((x) => Math.min(FAR, Math.max(-FAR, x)));

  /** How many levels above the lowest every pixel's loss is: computed at the corners of a grid, and interpolated. */
  const levelsOf = (loss, width, height) => {
    const across = Math.ceil(width / GRID) + 1;
    const corners = new Float64Array(across * (Math.ceil(height / GRID) + 1)).map((_, k) => {
      const [x, y] = [GRID * (k % across), GRID * Math.floor(k / across)];
      return LEVELS * Math.log10(Math.max(loss(theta(MARGIN.left + x, MARGIN.top + y)).loss, FLOOR) / FLOOR);
    });
    return new Int8Array(width * height).map((_, k) => {
      const [x, y] = [(k % width) / GRID, Math.floor(k / width) / GRID];
      const [column, row] = [Math.floor(x), Math.floor(y)];
      const [right, down, corner] = [x - column, y - row, row * across + column];
      const upper = corners[corner] + right * (corners[corner + 1] - corners[corner]);
      const lower = corners[corner + across] + right * (corners[corner + across + 1] - corners[corner + across]);
      return Math.floor(upper + down * (lower - upper));
    });
  };

  const isNear = (point) => point.every((x) => Math.abs(x) < FAR);

  /** Colour every pixel by its level of the loss, and draw a line where the level changes. */
  const paint = (surface, loss) => {
    if (backdrop?.surface === surface) return;
    place(surface.extent);
    const [width, height] = [view.width, view.height].map((x) => Math.max(1, Math.round(x)));
    const levels = levelsOf(loss, width, height);
    const highest = levels.reduce((a, b) => Math.max(a, b), 1);
    const [low, high, line] = ["low", "high", "line"].map((name) => colours[name].split(" ").map(Number));
    const packed = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r; // a pixel, opaque, as one number
    const shades = Array.from({ length: highest + 1 }, (_, k) => packed(plus(low, k / highest, plus(high, -1, low))));
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    levels.forEach((level, k) => {
      const edge = (k % width && level !== levels[k - 1]) || (k >= width && level !== levels[k - width]);
      pixels[k] = edge ? packed(line) : shades[level];
    });
    backdrop = { surface, canvas: Object.assign(document.createElement("canvas"), { width, height }) };
    backdrop.canvas.getContext("2d").putImageData(image, 0, 0);
  };

  const axes = ({ minima }) => {
    const { width, height, scale, corner } = view;
    const step = scale > 130 ? 0.5 : 1;
    pen.fillStyle = pen.strokeStyle = colours.soft;
    pen.lineWidth = 1;
    pen.font = `${Math.min(18, 12 + width / 250)}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const write = (x) => `${x}`.replace("-", "−");
    const floor = MARGIN.top + height;
    for (let a = Math.ceil(corner[0] / step) * step; a <= corner[0] + width / scale; a += step) {
      const [x] = pixel([a, 0]);
      pen.fillRect(x, floor, 1, 5);
      if (x < MARGIN.left + width - 36) pen.fillText(write(a), x, floor + 7);
    }
    pen.textAlign = "right";
    pen.fillText("θ₁", MARGIN.left + width, floor + 7);
    pen.textBaseline = "middle";
    for (let b = Math.ceil((corner[1] - height / scale) / step) * step; b <= corner[1]; b += step) {
      const [, y] = pixel([0, b]);
      pen.fillRect(MARGIN.left - 5, y, 5, 1);
      if (y > MARGIN.top + 24 && y < floor - 4) pen.fillText(write(b), MARGIN.left - 8, y);
    }
    pen.fillText("θ₂", MARGIN.left - 8, MARGIN.top + 8);
    pen.strokeRect(MARGIN.left, MARGIN.top, width, height);
    pen.strokeStyle = colours.ink;
    for (const [x, y] of minima.map(pixel)) {
      pen.stroke(new Path2D(`M${x - 7} ${y}h14M${x} ${y - 7}v14`));
    }
  };

  /** A line through points, in the method's colour and dashes, on a wider one in ink that sets it off from the map. */
  const line = (pen, points, { colour, dash }) => {
    pen.setLineDash(dash);
    pen.lineJoin = "round";
    for (const [style, width] of [[colours.ink, 3.7], [colour, 2.7]]) {
      [pen.strokeStyle, pen.lineWidth] = [style, width];
      pen.beginPath();
      points.forEach((point, t) => {
        const isSeen = t > 0 && (isNear(point) || isNear(points[t - 1]));
        isSeen ? pen.lineTo(...point) : pen.moveTo(...point);
      });
      pen.stroke();
    }
    pen.setLineDash([]);
  };

  const SHAPES = [ // of the methods' markers: circle, square, triangle, diamond
    (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
    (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (r) => `M0 ${-1.2 * r}l${1.2 * r} ${2.1 * r}h${-2.4 * r}z`,
    (r) => `M0 ${-1.4 * r}l${1.2 * r} ${1.4 * r}l${-1.2 * r} ${1.4 * r}l${-1.2 * r} ${-1.4 * r}z`,
  ];
  const marker = (pen, [x, y], { colour }, i, radius) => {
    const shape = new Path2D();
    shape.addPath(new Path2D(SHAPES[i](radius)), new DOMMatrix([1, 0, 0, 1, x, y]));
    [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [colour, colours.ink, 1.5];
    pen.fill(shape);
    pen.stroke(shape);
  };

  const arrow = (from, to, colour) => {
    const [x, y] = plus(to, -1, from);
    const turn = Math.atan2(y, x);
    const head = Math.min(9, Math.hypot(x, y) / 2);
    [pen.strokeStyle, pen.lineWidth] = [colour, 2.5];
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    for (const side of [2.6, -2.6]) {
      pen.moveTo(...to);
      pen.lineTo(to[0] + head * Math.cos(turn + side), to[1] + head * Math.sin(turn + side));
    }
    pen.stroke();
  };

  /** SAM's step t: θ, θ + ε̂ and the next θ. The step that comes next has arrows; those before fade with their age. */
  const triangle = ({ thetas, worst }, t, { colour }, age) => {
    const [here, top, next] = [thetas[t], worst[t], thetas[t + 1]].map(pixel);
    if (!isNear(here)) return;
    pen.globalAlpha = age === 0 ? 0.3 : 0.12 * 0.93 ** age;
    pen.fillStyle = colour;
    pen.beginPath();
    for (const point of [here, top, next]) pen.lineTo(...point);
    pen.fill();
    pen.globalAlpha = 1;
    if (age > 0) return;
    arrow(here, top, colours.ink);
    arrow(here, next, colour);
    const [x, y] = plus(top, -1, here);
    if (Math.hypot(x, y) < 25) return; // no room for its name
    [pen.fillStyle, pen.textAlign, pen.textBaseline] = [colours.ink, "center", y < 0 ? "bottom" : "top"];
    pen.fillText("θ + ε̂", top[0], top[1] + (y < 0 ? -4 : 4));
  };

  const draw = ({ surface, start, run, step }, paths) => {
    const { width, height } = view;
    pen.clearRect(0, 0, map.clientWidth, map.clientHeight);
    pen.drawImage(backdrop.canvas, MARGIN.left, MARGIN.top, width, height);
    axes(surface);
    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left, MARGIN.top, width, height);
    pen.clip();
    const chosen = methods.map((method, i) => ({ method, i, path: paths[method.name] }))
      .filter(({ method }) => run.includes(method.name))
      .reverse(); // SAM's solid line is seen through the dashes of the others
    for (const { method, path } of chosen) {
      line(pen, path.thetas.slice(0, step + 1).map(pixel), method);
      if (method.name === "SAM") {
        for (let t = 0; t <= Math.min(step, STEPS - 1); t++) triangle(path, t, method, step - t);
      }
    }
    marker(pen, pixel(start), { colour: "transparent" }, 0, 9);
    for (const { method, i, path } of chosen) marker(pen, pixel(path.thetas[step]), method, i, 6);
    pen.restore();
  };

  /** A method's line and marker, for the list. */
  const swatch = (canvas, method, i) => {
    const { width, height } = fit(canvas);
    const pen = canvas.getContext("2d");
    line(pen, [[0, height / 2], [width, height / 2]], method);
    marker(pen, [width / 2, height / 2], method, i, 5);
  };

  return { restyle, paint, draw, swatch, theta };
})();
