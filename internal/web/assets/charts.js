// Draws the charts of a page from its tables: without this the figures are there
// all the same. Needs uPlot.
"use strict";

(() => {
	const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
	const count = new Intl.NumberFormat("en-US");
	const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
	const share = (v) => v == null ? "–" : v === 0 ? "0 %" : v < 0.01 ? "< 0.01 %" : v.toFixed(v < 10 ? 2 : 1) + " %";
	const day = (t) => new Date(t * 1000).toISOString().slice(0, 10);
	const DAY = 86400;

	// The rows of a table in the order of time, as columns. Days without a row are gaps.
	function columns(table) {
		const rows = new Map();
		let width = 0;
		for (const tr of table.tBodies[0].rows) {
			const y = tr.dataset.y.split(",").map(Number);
			rows.set(Date.parse(tr.dataset.x + "T00:00:00Z") / 1000, y);
			width = y.length;
		}
		const times = [...rows.keys()].sort((a, b) => a - b);
		const data = Array.from({ length: width + 1 }, () => []);
		for (let t = times[0]; t <= times[times.length - 1]; t += DAY) {
			data[0].push(t);
			for (let i = 0; i < width; i++) data[i + 1].push(rows.has(t) ? rows.get(t)[i] : null);
		}
		return data;
	}

	const bars = (size) => uPlot.paths.bars({ size: [size, 40], radius: 0.12 });

	function axes(more) {
		const font = "12px " + getComputedStyle(document.body).fontFamily;
		const common = { stroke: color("muted"), font, ticks: { show: false } };
		return [
			{
				...common, grid: { show: false }, space: 56, incrs: [1, 2, 3, 5, 7, 10, 14].map((d) => d * DAY),
				values: (u, splits) => splits.map((t) => t % DAY === 0 ? day(t).slice(5) : ""),
			},
			{ ...common, grid: { stroke: color("grid"), width: 1 }, size: 52, values: (u, splits) => splits.map((v) => Number.isInteger(v) ? short.format(v) : "") },
			...more.map((a) => ({ ...common, grid: { show: false }, size: 52, ...a })),
		];
	}

	const time = { label: "Day", value: (u, t) => t == null ? "–" : day(t) };
	const sessions = (u, v) => v == null ? "–" : count.format(v);
	const fromZero = (u, min, max) => [0, Math.max(1, max * 1.06)];
	const timeRange = (u, min, max) => [min - DAY * 0.6, max + DAY * 0.6];

	const kinds = {
		days: (data) => ({
			data,
			series: [
				time,
				{ label: "Sessions", value: sessions, fill: color("bars"), stroke: color("bars"), width: 0, paths: bars(0.62), points: { show: false } },
				{ label: "Failed", value: sessions, fill: color("bad"), stroke: color("bad"), width: 0, paths: bars(0.62), points: { show: false } },
				{ label: "Failure rate", value: (u, v) => share(v), scale: "rate", stroke: color("warn"), width: 2, points: { show: data[0].length < 3, size: 6 } },
			],
			scales: { rate: { range: (u, min, max) => [0, Math.max(1, max * 1.4)] } },
			axes: axes([{ side: 1, scale: "rate", values: (u, splits) => splits.map((v) => +v.toFixed(2) + " %") }]),
		}),
		types: (data, table) => {
			const names = [...table.tHead.rows[0].cells].slice(1).map((th) => th.dataset.series);
			const stacked = data.slice(1).map((c) => c.map((v) => v || 0));
			for (let i = 1; i < stacked.length; i++) stacked[i] = stacked[i].map((v, x) => v + stacked[i - 1][x]);
			// The highest is drawn first, the others over it.
			const order = names.map((_, i) => i).reverse();
			return {
				data: [data[0], ...order.map((i) => stacked[i])],
				series: [time, ...order.map((i) => ({
					label: names[i], value: (u, v, s, x) => x == null ? "–" : sessions(u, data[i + 1][x]),
					fill: color("type-" + (i % 6 + 1)), stroke: color("card"), width: 1, paths: bars(0.62), points: { show: false },
				}))],
				scales: {},
				axes: axes([]),
			};
		},
	};

	const charts = [];

	function draw(box) {
		const table = document.getElementById(box.dataset.table);
		const data = columns(table);
		const kind = kinds[box.dataset.chart](data, table);
		const height = Math.max(180, Math.min(260, box.clientWidth * 0.42));
		box.replaceChildren();
		return new uPlot({
			width: box.clientWidth, height, series: kind.series, axes: kind.axes,
			scales: { x: { time: true, range: timeRange }, y: { range: fromZero }, ...kind.scales },
			tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
			cursor: { drag: { x: false, y: false }, points: { show: false } },
			legend: { live: true },
		}, kind.data, box);
	}

	function drawAll() {
		for (const c of charts) {
			if (c.plot) c.plot.destroy();
			c.plot = draw(c.box);
		}
	}

	for (const box of document.querySelectorAll("[data-chart]")) charts.push({ box });
	drawAll();
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
	let width = document.documentElement.clientWidth;
	addEventListener("resize", () => {
		if (width !== (width = document.documentElement.clientWidth)) drawAll();
	});
})();
