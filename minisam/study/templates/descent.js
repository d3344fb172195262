"use strict";

// Surfaces and optimizers in float64, line by line those of minisam/analysis/toy.py and minisam/optim; a test holds
// them equal. All functions are pure: θ, gradients and velocities are pairs of numbers that are never changed.

/** a + scale · b, for vectors. */
const plus = (a, scale, b) => a.map((x, i) => x + scale * b[i]);

/** By the name of minisam's class: its parameters → (θ → {loss, grad}). */
const SURFACES = {
  Bowl: ({ h }) => ([x, y]) => ({
    loss: 0.5 * (h[0] * x ** 2 + h[1] * y ** 2),
    grad: [h[0] * x, h[1] * y],
  }),

  Rosenbrock: ({ b }) => ([x, y]) => {
    const off = y - x ** 2; // off the valley's floor
    return {
      loss: (1 - x) ** 2 + b * off ** 2,
      grad: [-2 * (1 - x) - 4 * b * x * off, 2 * b * off],
    };
  },

  TwoMinima: ({ h, centres }) => (theta) => {
    const away = centres.map((centre) => plus(theta, -1, centre));
    const q = away.map(([x, y], i) => 0.5 * h[i] * (x ** 2 + y ** 2));
    const lowest = Math.min(...q);
    const loss = lowest - Math.log(Math.exp(lowest - q[0]) + Math.exp(lowest - q[1]));
    const p = q.map((one) => Math.exp(loss - one)); // the share of each bowl
    return {
      loss,
      grad: plus(away[0].map((x) => p[0] * h[0] * x), p[1] * h[1], away[1]),
    };
  },
};

/** How each method moves: θ, the gradient g to follow, the rates, what it remembers → the next θ, what to remember. */
const UPDATES = {
  GD: (theta, g, { lr }) => ({ next: plus(theta, -lr, g) }),

  Momentum: (theta, g, { lr, momentum }, velocity = [0, 0]) => {
    const v = plus(g, momentum, velocity);
    return { next: plus(theta, -lr, v), memory: v };
  },

  Adam: (theta, g, { adam }, { m, v, t } = { m: [0, 0], v: [0, 0], t: 0 }) => {
    const [beta1, beta2, eps] = [0.9, 0.999, 1e-8];
    m = m.map((old, i) => beta1 * old + (1 - beta1) * g[i]);
    v = v.map((old, i) => beta2 * old + (1 - beta2) * g[i] ** 2);
    t = t + 1;
    const unbiased = (moment, beta) => moment / (1 - beta ** t);
    const direction = m.map((one, i) => unbiased(one, beta1) / (Math.sqrt(unbiased(v[i], beta2)) + eps));
    return { next: plus(theta, -adam, direction), memory: { m, v, t } };
  },

  SAM: (theta, g, { lr }) => ({ next: plus(theta, -lr, g) }), // GD, with the gradient found at θ + ε̂
};

/** θ + ε̂ with ε̂ = ρ g / ‖g‖₂: to first order the worst point within ρ. Where g = 0 there is nowhere to climb. */
const climb = (theta, g, rho) => {
  const norm = Math.sqrt(g[0] ** 2 + g[1] ** 2);
  return norm === 0 ? theta : plus(theta, rho / norm, g);
};

/** The path of a method: thetas (steps + 1), their losses, and worst (steps), where each gradient was taken. */
const descend = (method, surface, start, rates, steps) => {
  const path = { thetas: [start], losses: [surface(start).loss], worst: [] };
  for (let theta = start, memory, t = 0; t < steps; t++) {
    const worst = method === "SAM" ? climb(theta, surface(theta).grad, rates.rho) : theta;
    ({ next: theta, memory } = UPDATES[method](theta, surface(worst).grad, rates, memory));
    path.worst.push(worst);
    path.thetas.push(theta);
    path.losses.push(surface(theta).loss);
  }
  return path;
};
