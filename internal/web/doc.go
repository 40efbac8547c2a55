// Package web is what an operator looks at: the pages of the dashboard, /metrics,
// /healthz and /readyz. All of it only reads.
//
// Nearly every string on a page was chosen by a stranger. html/template escapes
// it, and [show] bounds it and makes visible what would not print as itself.
//
// Charts are drawn by uPlot 1.6.32 (MIT, https://github.com/leeoniya/uPlot), the
// files of its npm package in assets, from the tables that are there without it.
package web
