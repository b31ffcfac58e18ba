// Draws the figures of a report from the data in the page. Text comes into the page as text, never as HTML.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  // Okabe and Ito's colours, which people with any colour vision tell apart; beyond eight, dashes do.
  const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#7f7f7f"];
  const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
  const color = (index) => COLORS[index % COLORS.length];
  const dash = (index) => DASHES[Math.floor(index / COLORS.length) % DASHES.length];
  const number = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(5)).toString());

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // One row for each mark.
  function rows(chart) {
    const all = [];
    chart.series.forEach((series, index) =>
      series.lines.forEach((line, z) => line.forEach((mark) => all.push({ ...mark, series: series.name, index, z: index + "/" + z })))
    );
    return all;
  }

  function axis(described, extra) {
    const options = { label: described.label, grid: true, ...extra };
    if (described.scale === "log") options.type = "log";
    if (described.zero) options.zero = true;
    if (described.scale === "words") { options.type = "point"; options.grid = false; }
    return options;
  }

  function draw(chart, width) {
    const all = rows(chart);
    const style = { stroke: (row) => color(row.index), z: "z" };
    const marks = [];
    chart.series.forEach((series, index) => {
      const own = all.filter((row) => row.index === index);
      // Words have no order along which a line would mean anything.
      if (chart.x.scale !== "words") {
        marks.push(Plot.lineY(own, { x: "x", y: "y", z: "z", stroke: color(index), strokeDasharray: dash(index), strokeWidth: chart.drawing === "curves" ? 1.25 : 1.75 }));
      }
    });
    // A line of one point cannot be seen.
    if (chart.drawing === "curves") {
      const single = all.filter((row) => chart.series[row.index].lines[row.z.split("/")[1]].length === 1);
      marks.push(Plot.dot(single, { x: "x", y: "y", r: 4, fill: (row) => color(row.index), stroke: "none" }));
    }
    if (chart.drawing === "points") {
      const spread = all.filter((row) => row.low !== undefined);
      marks.push(Plot.link(spread, { x1: "x", x2: "x", y1: "low", y2: "high", strokeWidth: 1.5, ...style }));
      marks.push(Plot.dot(all, { x: "x", y: "y", r: 4, fill: (row) => color(row.index), stroke: "none" }));
    }
    if (chart.id === "differences") marks.push(Plot.ruleY([0], { stroke: "currentColor", strokeOpacity: 0.6 }));
    const title = (row) => `${row.series}\n${chart.x.label} ${typeof row.x === "number" ? number(row.x) : row.x}\n${number(row.y)}`;
    marks.push(Plot.tip(all, Plot.pointer({ x: "x", y: "y", title })));
    const order = chart.x.order ?? [...new Set(all.map((row) => row.x))];
    const x = axis(chart.x, chart.x.scale === "words" ? { domain: order } : chart.x.scale === "log" ? { ticks: order, tickFormat: (value) => number(value) } : {});
    return Plot.plot({
      width, height: Math.max(240, Math.min(380, width * 0.5)), marginLeft: 60, marginBottom: 46,
      style: { fontSize: "13px", color: "inherit", background: "transparent" },
      x, y: axis(chart.y, { nice: true }), color: { type: "identity" }, marks,
    });
  }

  // What the drawing shows, as a table and as comma-separated values.
  function cells(chart) {
    const spread = rows(chart).some((row) => row.low !== undefined);
    const header = ["series", chart.x.label, chart.y.label, ...(spread ? ["low", "high"] : [])];
    const body = rows(chart).map((row) => [row.series, row.x, row.y, ...(spread ? [row.low ?? "", row.high ?? ""] : [])].map(String));
    return [header, ...body];
  }

  function csv(chart) {
    const quote = (cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
    return cells(chart).map((row) => row.map(quote).join(",")).join("\n") + "\n";
  }

  function save(name, kind, text) {
    const link = element("a", { href: `data:${kind};charset=utf-8,${encodeURIComponent(text)}`, download: name });
    link.click();
  }

  function table(chart) {
    const [header, ...body] = cells(chart);
    const row = (kind) => (line) => element("tr", {}, ...line.map((cell) => {
      const made = element(kind, kind === "th" ? { scope: "col" } : {});
      made.textContent = cell;
      return made;
    }));
    const made = element("table", {}, element("thead", {}, row("th")(header)), element("tbody", {}, ...body.map(row("td"))));
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Data of: ${chart.title}` }, made);
  }

  function legend(chart) {
    const list = element("ul", { class: "legend" });
    chart.series.forEach((series, index) => {
      const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      for (const [name, value] of [["width", 26], ["height", 10], ["aria-hidden", "true"]]) key.setAttribute(name, value);
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const set = { x1: 0, x2: 26, y1: 5, y2: 5, stroke: color(index), "stroke-width": 3, "stroke-dasharray": dash(index) };
      for (const [name, value] of Object.entries(set)) line.setAttribute(name, value);
      key.append(line);
      list.append(element("li", {}, key, series.name));
    });
    return list;
  }

  const lightText = "#1a1a1a";
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const chart = charts.find((chart) => chart.id === figure.dataset.chart);
    if (chart.series.length > 1) figure.append(legend(chart));
    const place = element("div", { class: "chart", role: "img", "aria-label": `${chart.title}. ${chart.sentence}` });
    figure.append(place);
    let drawn = 0;
    const redraw = () => {
      const width = Math.max(280, Math.floor(place.clientWidth));
      if (width === drawn) return;
      drawn = width;
      const svg = draw(chart, width);
      // To a screen reader the drawing is one picture with one name, whose data the table has.
      svg.setAttribute("aria-hidden", "true");
      svg.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
      place.replaceChildren(svg);
    };
    redraw();
    new ResizeObserver(redraw).observe(place);
    const svg = element("button", { type: "button" }, "Save as SVG");
    svg.addEventListener("click", () => {
      const copy = place.querySelector("svg").cloneNode(true);
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.style.color = lightText;
      save(`${chart.id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(copy));
    });
    const values = element("button", { type: "button" }, "Save as CSV");
    values.addEventListener("click", () => save(`${chart.id}.csv`, "text/csv", csv(chart)));
    const details = element("details", {}, element("summary", {}, "Data"));
    // A table of thousands of rows is made when somebody looks at it.
    details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(table(chart)); });
    figure.append(element("div", { class: "tools" }, svg, values), details);
  }
})();
