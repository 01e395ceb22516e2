"use strict";
// Charts ------------------------------------------------------------------------------------------------------------
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const quiet = { mode: "vega-lite", actions: false, renderer: "svg", logLevel: 1 };
  const look = (isDark) => {
    const text = isDark ? "#e6e9ee" : "#1b1f26", soft = isDark ? "#a3adba" : "#59626f", line = isDark ? "#2c333c" : "#e6e8eb";
    return {
      background: isDark ? "#14171c" : "#ffffff",
      font: 'system-ui, "Segoe UI", Helvetica, Arial, sans-serif',
      view: { stroke: null },
      axis: {
        gridColor: line, domainColor: soft, tickColor: soft, labelColor: soft, titleColor: text,
        labelFontSize: 11.5, titleFontWeight: 500,
      },
      legend: { labelColor: text, titleColor: text, labelFontSize: 11.5 },
      text: { color: text },
      style: { halo: { fill: text, stroke: isDark ? "#14171c" : "#ffffff", strokeWidth: 5, strokeOpacity: 0.85 } },
    };
  };
  // On narrow screens long labels make room for the marks, and legends have one column
  const fit = (part, narrow, width) => {
    if (Array.isArray(part)) { part.forEach((one) => fit(one, narrow, width)); return; }
    if (part === null || typeof part !== "object") return;
    if (part.columns && width < 760) Object.assign(part, { columns: 1, labelLimit: Math.round(width * 0.72) });
    else if (narrow && typeof part.labelLimit === "number") part.labelLimit = Math.round(width * 0.36);
    Object.values(part).forEach((one) => fit(one, narrow, width));
  };
  const prepared = (source, figure) => {
    const specification = JSON.parse(source);
    const width = figure.clientWidth, narrow = width < 520;
    fit(specification.encoding, narrow, width);
    fit(specification.layer, narrow, width);
    specification.width = figure.querySelector(".plot").clientWidth;
    specification.autosize = { type: "fit-x", contains: "padding" };
    return specification;
  };
  const draw = async (figure) => {
    const source = figure.querySelector("script").textContent, plot = figure.querySelector(".plot");
    const specification = prepared(source, figure);
    const tooltip = { theme: dark.matches ? "dark" : "light" };
    await vegaEmbed(plot, specification, { ...quiet, config: look(dark.matches), tooltip });
  };
  const save = async (figure, format) => {
    // For paper and slides the chart is redrawn off screen in its own size and in light colours
    const hidden = document.createElement("div");
    const specification = { ...JSON.parse(figure.querySelector("script").textContent), padding: 10 };
    const { view, finalize } = await vegaEmbed(hidden, specification, { ...quiet, config: look(false) });
    const address = await view.toImageURL(format, 2);
    finalize();
    const link = document.createElement("a");
    link.href = address;
    link.download = `${figure.id.replace("figure-", "")}.${format}`;
    link.click();
  };
  const figures = [...document.querySelectorAll("figure.chart")];
  for (const figure of figures) {
    for (const format of ["svg", "png"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "save";
      button.textContent = `Save as ${format.toUpperCase()}`;
      button.setAttribute("aria-label", `Save “${figure.querySelector("strong").textContent}” as ${format.toUpperCase()}`);
      button.addEventListener("click", () => save(figure, format));
      figure.append(button);
    }
  }
  // Visible charts are drawn first and the others while the page is idle, so that it responds from the start
  const root = document.documentElement;
  const idle = () => new Promise((done) => (window.requestIdleCallback || setTimeout)(done, { timeout: 200 }));
  const visible = (figure) => {
    const box = figure.getBoundingClientRect();
    return box.bottom > -200 && box.top < window.innerHeight + 200;
  };
  let waiting = [], running = false;
  // A chart that is drawn may move the content below it: a reader who followed a link stays there until they scroll
  let goal = null;
  window.addEventListener("hashchange", () => { goal = running ? document.getElementById(location.hash.slice(1)) : null; });
  for (const name of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    window.addEventListener(name, () => { goal = null; }, { passive: true });
  }
  const work = async () => {
    if (running) return;
    running = true;
    for (;;) {
      const next = waiting.findIndex(visible);
      if (next < 0) root.dataset.ready = "";
      if (!waiting.length) break;
      await idle();
      const [figure] = waiting.splice(Math.max(0, waiting.findIndex(visible)), 1);
      await draw(figure);
      goal?.scrollIntoView({ behavior: "instant" });
    }
    goal = null;
    running = false;
    root.dataset.drawn = String(figures.length);
  };
  const drawAll = () => { waiting = [...figures]; return work(); };
  dark.addEventListener("change", drawAll);
  let narrow = window.innerWidth < 640;
  window.addEventListener("resize", () => {
    if (narrow !== window.innerWidth < 640) { narrow = !narrow; drawAll(); }
  });
  drawAll();
})();

// Table of points -----------------------------------------------------------------------------------------------------
(() => {
  const table = document.getElementById("table");
  const body = table.querySelector("tbody.points"), rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim(), number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  // Numbers before words; missing values last in either direction
  const missing = (a) => a === "nan" || a === "";
  const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("rank") || head.classList.contains("text") || column < table.querySelector("th.main").cellIndex;
      const before = head.getAttribute("aria-sort");
      const rising = before ? before === "descending" : first;
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const sorted = rows.map((row) => [value(row, column), row]).sort(([a], [b]) =>
        missing(a) || missing(b) ? missing(a) - missing(b) : (rising ? 1 : -1) * compare(a, b));
      body.append(...sorted.map(([, row]) => row));
    });
  });
  document.getElementById("all-columns").addEventListener("change", (event) => table.classList.toggle("all", event.target.checked));
  const search = document.getElementById("search");
  if (!search) return;
  const choices = [...document.querySelectorAll("[data-filter]")], shown = document.getElementById("shown");
  const texts = new Map(rows.map((row) => [row, `${row.textContent} ${row.title}`.toLowerCase()]));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits = words.every((word) => texts.get(row).includes(word)) &&
        choices.every((choice) => choice.value === "*" || row.dataset[choice.dataset.filter] === choice.value);
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = count === rows.length ? `${count} points` : `${count} of ${rows.length} points`;
  };
  search.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
  search.form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();

// Audio ---------------------------------------------------------------------------------------------------------------
(() => {
  const keep = document.getElementById("keep-position");
  const players = [...document.querySelectorAll("audio")];
  // Clips are loaded as they come into view, not all at once when the page opens
  const near = new IntersectionObserver((found) => {
    for (const { target, isIntersecting } of found) if (isIntersecting) { target.preload = "metadata"; near.unobserve(target); }
  }, { rootMargin: "300px" });
  players.forEach((player) => near.observe(player));
  let last = null;
  for (const player of players) {
    const clip = player.closest(".clip"), head = clip.querySelector(".playhead"), picture = clip.querySelector(".spectrogram");
    const follow = () => {
      head.style.opacity = player.currentTime > 0 ? 1 : 0;
      head.style.left = `${100 * player.currentTime / (player.duration || 1)}%`;
      if (!player.paused) requestAnimationFrame(follow);
    };
    player.addEventListener("play", () => {
      if (last && last !== player) {
        const together = last.closest(".item") === player.closest(".item");
        if (keep.checked && together && last.currentTime > 0 && !last.ended) player.currentTime = last.currentTime;
        last.pause();
      }
      last = player;
      follow();
    });
    player.addEventListener("seeked", follow);
    player.addEventListener("ended", follow);
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const seek = () => { player.currentTime = (event.clientX - box.left) / box.width * player.duration; };
      // The clicked position counts, not the position of the previous clip
      last?.pause();
      last = null;
      player.play().then(seek, seek);
    });
  }
})();
