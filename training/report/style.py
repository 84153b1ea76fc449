"""The style sheet of the report. Colours after Okabe and Ito (2008), which colour-blind readers tell apart;
what a colour says, a word or a sign says too.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --ink: #1d2227; --muted: #5c6670; --rule: #dfe2e5; --soft: #f1f3f4;
  --model: #0072b2; --other: #b3bcc5; --serving: #cc79a7; --test: #d98c00; --alert: #a84300;
  --alert-soft: #fdf1e3; --model-soft: #e3f0f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e4e7e9; --muted: #9aa5ae; --rule: #2e353b; --soft: #1e2327;
    --model: #56b4e9; --other: #55606a; --serving: #d995bb; --test: #e69f00; --alert: #f0a35e;
    --alert-soft: #2b2118; --model-soft: #17303f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 68rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
header p, h2 + p, footer { color: var(--muted); }
.kicker {
  margin: 0 0 .6rem; font-size: .78rem; letter-spacing: .09em; text-transform: uppercase;
}
h1 {
  margin: 0; max-width: 24em; text-wrap: balance; font-weight: 500; font-size: clamp(1.5rem, 4.2vw, 2.15rem);
  line-height: 1.25; letter-spacing: -.01em;
  font-family: ui-serif, Charter, "Iowan Old Style", "Source Serif 4", Cambria, Georgia, serif;
}
header > p:last-of-type { max-width: 46rem; margin: .9rem 0 0; overflow-wrap: anywhere; }
h2 { margin: 3.6rem 0 .2rem; padding-top: 1.1rem; border-top: 1px solid var(--rule);
     font-size: 1.12rem; font-weight: 650; }
h2 + p { margin: 0 0 1.2rem; max-width: 46rem; }
h3 { margin: 1.6rem 0 .5rem; font-size: .95rem; font-weight: 650; }
.alert { margin-top: 1.6rem; padding: .9rem 1.1rem; border-left: 3px solid var(--alert);
         background: var(--alert-soft); max-width: 46rem; }
.alert p { margin: 0; color: var(--ink); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr)); gap: 1.4rem 1.6rem;
         margin: 2.2rem 0 0; }
.facts div { border-top: 2px solid var(--rule); padding-top: .55rem; }
.facts div:first-child { border-color: var(--model); }
.facts dt { font-size: .82rem; color: var(--muted); }
.facts dd { margin: 0; font-size: 1.55rem; font-weight: 600; line-height: 1.3; letter-spacing: -.01em; }
.facts small { display: block; font-size: .8rem; font-weight: 400; letter-spacing: 0; color: var(--muted); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
          gap: 2.2rem 3rem; align-items: start; }
figure { margin: 0; }
figcaption { margin-bottom: .7rem; line-height: 1.35; }
figcaption b { display: block; font-weight: 600; font-size: .95rem; }
figcaption span { font-size: .84rem; color: var(--muted); }
svg.chart { display: block; width: 100%; max-width: 30rem; height: auto; overflow: visible; }
svg text { font-size: 12px; fill: var(--muted); }
svg text.strong, svg text.now { fill: var(--ink); font-weight: 600; }
svg .base { stroke: var(--rule); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--model); stroke-width: 2; stroke-linejoin: round; }
svg circle { fill: var(--model); }
svg .train { fill: var(--other); } svg .test { fill: var(--test); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 400; }
.num { text-align: right; white-space: nowrap; }
.bars th { width: 1%; padding: .22rem .9rem .22rem 0; white-space: nowrap; }
.bars td.note { padding: 0 .9rem 0 0; font-size: .8rem; color: var(--muted); font-weight: 400; }
.bars .track { position: relative; }
.bars .track i { display: block; height: .82rem; min-width: 1px; border-radius: 0 2px 2px 0;
                 background: var(--other); }
.bars .track u { position: absolute; top: calc(50% - .5px); height: 1px; background: var(--ink); }
.bars .track u::before, .bars .track u::after { content: ""; position: absolute; top: -3px; width: 1px;
                                                height: 7px; background: var(--ink); }
.bars .track u::before { left: 0; } .bars .track u::after { right: 0; }
.bars .num { width: 1%; padding-left: .8rem; }
.bars .model th, .bars .model .num { font-weight: 600; }
.bars .model i { background: var(--model); } .bars .serving i { background: var(--serving); }
.plain .bars .model th, .plain .bars .model .num { font-weight: 400; }
.scroll { overflow-x: auto; }
.grid th, .grid td { padding: .36rem .9rem .36rem 0; border-bottom: 1px solid var(--rule); }
.grid thead th { font-size: .82rem; color: var(--muted); white-space: nowrap; }
.grid tbody th { white-space: nowrap; }
.notes { margin: 1rem 0 0; padding-left: 1.1rem; font-size: .84rem; color: var(--muted); }
.scores tbody th { position: sticky; left: 0; background: var(--paper); padding-right: .4rem; }
.scores { font-size: .86rem; }
.scores thead tr:first-child th { border: 0; padding-bottom: 0; color: var(--ink);
                               font-weight: 600; text-align: left; }
.scores th.num, .scores td.num { padding: .36rem 0 .36rem .8rem; }
.scores .kind { padding-left: 1.7rem; }
.scores tr > .num:nth-child(4n + 2) { padding-left: 1.7rem; }
.grid .own th, .grid .own td { font-weight: 600; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 3rem;
       align-items: start; }
.wrap td { overflow-wrap: anywhere; white-space: normal; text-align: left; }
.wrap th { width: 40%; vertical-align: top; color: var(--muted); }
.mark { display: inline-block; margin-left: .5rem; padding: 0 .45rem; border-radius: 1rem; font-size: .76rem;
        background: var(--model-soft); color: var(--model); white-space: nowrap; }
.mark.chosen { background: var(--soft); color: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0 0 1rem; padding: 0; list-style: none;
          font-size: .84rem; color: var(--muted); }
.legend i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 2px;
            background: var(--other); }
.legend i.test { background: var(--test); }
.sessions { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr));
            gap: 1.2rem 3rem; }
.steps { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
.steps li { position: relative; padding: 0 0 .9rem 1.3rem; }
.steps li::before { content: ""; position: absolute; left: 0; top: .5em; width: 7px; height: 7px;
                    border-radius: 50%; background: var(--muted); }
.steps li:not(:last-child)::after { content: ""; position: absolute; left: 3px; top: calc(.5em + 11px);
                                    bottom: -.2em; width: 1px; background: var(--rule); }
.steps p { margin: 0; display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; }
.steps .list { margin-top: .25rem; gap: .25rem .3rem; font-size: .8rem; }
.steps .list span { padding: 0 .4rem; border-radius: 3px; background: var(--soft); max-width: 100%; }
.steps .list .came { background: var(--model); color: var(--paper); font-weight: 600; }
.steps small { color: var(--muted); }
.steps .hit { color: var(--model); font-weight: 600; }
.steps .miss { color: var(--muted); }
bdi { overflow-wrap: anywhere; max-width: 100%; overflow: clip; }
code { font: .88em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
footer { margin-top: 3.6rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); font-size: .84rem; }
footer p { max-width: 46rem; }
@media print {
  main { padding: 0; max-width: none; } h2 { break-after: avoid; } figure, li { break-inside: avoid; }
}
"""
