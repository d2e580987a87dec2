// Draws a dashboard's JSON with the components that Grafana publishes. The application, which would
// read the JSON and hand it to them, is in no package registry: what it does in between is here, and
// only what our dashboard needs. Something else in the JSON is an error, not a panel that looks as if.
//
// The page reads data.json: the dashboard, the values of its variables, the range in milliseconds,
// and for every panel what Prometheus answered. At the end it posts to /drawn the titles of what it
// has drawn, and errors: one while rendering takes the whole page away.

import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';

import {
  applyFieldOverrides,
  createTheme,
  dateTime,
  dateTimeFormat,
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  ThemeContext,
} from '@grafana/data';
import { defaultOptions as barDefaults } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import { defaultOptions as statDefaults } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import { BarGauge, BigValue, GlobalStyles, Icon, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import { version } from '@grafana/ui/package.json';
import { createRoot } from 'react-dom/client';

const theme = createTheme({ colors: { mode: 'dark' } });
const TIME_ZONE = 'browser';

// What Grafana fills in where the JSON says nothing. So a value above 80 is red, whatever its unit.
const STEPS = [{ value: null, color: 'green' }, { value: 80, color: 'red' }];
const FIELD_DEFAULTS = { thresholds: { mode: 'absolute', steps: STEPS }, mappings: [] };
const DEFAULTS = {
  timeseries: {
    color: 'palette-classic',
    custom: { drawStyle: 'line', lineInterpolation: 'linear', axisGridShow: true, pointSize: 5 },
    options: { legend: { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [] } },
  },
  stat: { color: 'thresholds', options: { ...statDefaults, orientation: 'auto' } },
  bargauge: { color: 'thresholds', options: { ...barDefaults, orientation: 'auto' } },
};
const DRAWN = ['type', 'id', 'title', 'description', 'datasource', 'gridPos', 'fieldConfig', 'options', 'targets'];

/** Return a panel with its defaults; an error names what cannot be drawn. */
function completed(panel) {
  const unknown = Object.keys(panel).filter((key) => !DRAWN.includes(key));
  if (!DEFAULTS[panel.type] || unknown.length || panel.fieldConfig.overrides.length) {
    throw new Error(`${panel.title}: ${[panel.type, ...unknown]} or its overrides cannot be drawn`);
  }
  const { color, custom, options } = DEFAULTS[panel.type];
  const given = panel.fieldConfig.defaults;
  const config = { ...FIELD_DEFAULTS, color: { mode: color }, ...given, custom: { ...custom, ...given.custom } };
  const legend = { ...options.legend, ...panel.options.legend };
  return { ...panel, config, options: { ...options, ...panel.options, legend } };
}

/** Name a series as the legend's template says: {{label}}. */
function named(template, labels) {
  return template.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? label);
}

/** Return a data frame per series, as Grafana's data source makes them. */
function frames(panel, answers, step) {
  const data = answers.flatMap(({ target, result }) =>
    result.map(({ metric, values }) => ({
      refId: target.refId,
      length: values.length,
      fields: [
        // Where more than a step is missing, Grafana puts a null.
        { name: 'Time', type: FieldType.time, config: { interval: step }, values: values.map(([time]) => 1000 * time) },
        {
          name: 'Value',
          type: FieldType.number,
          labels: metric,
          config: { ...panel.config, displayNameFromDS: named(target.legendFormat, metric) },
          values: values.map(([, value]) => Number(value)).map((value) => (Number.isFinite(value) ? value : null)),
        },
      ],
    }))
  );
  const nothing = { defaults: {}, overrides: [] };
  return applyFieldOverrides({ data, fieldConfig: nothing, replaceVariables: String, theme, timeZone: TIME_ZONE });
}

function Series({ panel, data, timeRange, width, height }) {
  if (!data.length) {
    return <div style={{ height, display: 'grid', placeItems: 'center' }}>No data</div>;
  }
  const { options } = panel;
  const how = { timeRange, timeZone: TIME_ZONE, options, legend: options.legend };
  return <TimeSeries frames={data} {...{ width, height, ...how }} />;
}

/** What stat and bargauge have in common: one drawing per reduced series. */
function Repeated({ panel, data, width, height, children, ...layout }) {
  const { reduceOptions, graphMode, orientation } = panel.options;
  const fieldConfig = { defaults: panel.config, overrides: [] };
  const sparkline = (graphMode ?? 'none') !== 'none';
  const how = { fieldConfig, reduceOptions, sparkline, replaceVariables: String, theme, timeZone: TIME_ZONE };
  return (
    <VizRepeater
      getValues={() => getFieldDisplayValues({ ...how, data })}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={children}
      source={data}
      {...{ width, height, orientation, ...layout }}
    />
  );
}

function Stat({ timeRange, ...given }) {
  const { colorMode, graphMode, justifyMode, textMode, wideLayout, text } = given.panel.options;
  const look = { colorMode, graphMode, justifyMode, textMode, wideLayout, text, theme };
  return (
    <Repeated {...given} itemSpacing={3} autoGrid>
      {({ value, count, alignmentFactors, width, height }) => {
        const sparkline = value.sparkline && { ...value.sparkline, timeRange };
        return <BigValue value={value.display} {...{ count, alignmentFactors, width, height, sparkline, ...look }} />;
      }}
    </Repeated>
  );
}

function Bars(given) {
  const { displayMode, showUnfilled, valueMode, namePlacement, text } = given.panel.options;
  const { minVizWidth, minVizHeight, maxVizHeight } = given.panel.options;
  const itemSpacing = displayMode === 'lcd' ? 2 : 10;
  const look = { displayMode, showUnfilled, namePlacement, text, theme, itemSpacing, lcdCellWidth: 12 };
  return (
    <Repeated {...given} {...{ itemSpacing, minVizWidth, minVizHeight, maxVizHeight }}>
      {({ value, count, alignmentFactors, orientation, width, height }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          alignmentFactors={count > 1 ? alignmentFactors : undefined}
          valueDisplayMode={valueMode}
          {...{ orientation, width, height, ...look }}
        />
      )}
    </Repeated>
  );
}

const TYPES = { timeseries: Series, stat: Stat, bargauge: Bars };

function Panel({ panel, answers, step, timeRange, width, height }) {
  const whole = completed(panel);
  const Type = TYPES[panel.type];
  const data = frames(whole, answers, step);
  return (
    <PanelChrome title={panel.title} description={panel.description} {...{ width, height }}>
      {(inner, high) => <Type panel={whole} data={data} timeRange={timeRange} width={inner} height={high} />}
    </PanelChrome>
  );
}

// Grafana's grid: 24 columns, rows of 30 px, 8 px between.
const [COLUMNS, ROW, GAP] = [24, 30, 8];

function Page({ dashboard, variables, from, to, step, answers }) {
  const column = (window.innerWidth - GAP * (COLUMNS + 1)) / COLUMNS;
  const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
  const [begin, end] = [from, to].map((time) => dateTimeFormat(time, { timeZone: TIME_ZONE }));
  const asked = dashboard.templating.list.filter(({ name }) => name in variables);
  const text = ({ name, allValue }) => (variables[name] === allValue ? 'All' : variables[name]);
  const chosen = asked.map((variable) => `${variable.label}: ${text(variable)}`);
  const small = { color: theme.colors.text.secondary, fontSize: 12, marginLeft: 16 };
  return (
    <>
      <header style={{ padding: GAP }}>
        <span style={{ fontSize: 18, fontWeight: 500 }}>{dashboard.title}</span>
        <span style={small}>{[...chosen, `${begin} to ${end}`].join(', ')}</span>
        <span style={{ ...small, float: 'right', lineHeight: '27px' }}>
          drawn by Grafana's component library (@grafana/ui {version}) from cluster/grafana/dashboard.json; not the
          Grafana server
        </span>
      </header>
      <main style={{ position: 'relative' }}>
        {dashboard.panels.map((panel) => {
          const { x, y, w, h } = panel.gridPos;
          const [left, top] = [GAP + x * (column + GAP), y * (ROW + GAP)];
          const [width, height] = [w * column + (w - 1) * GAP, h * ROW + (h - 1) * GAP].map(Math.round);
          const given = { panel, step, timeRange, width, height, answers: answers[panel.id] };
          const heading = (
            <h2 style={{ fontSize: 16, lineHeight: `${height}px`, margin: 0 }}>
              <Icon name="angle-down" /> {panel.title}
            </h2>
          );
          return (
            <div key={panel.id} style={{ position: 'absolute', left, top, width, height }}>
              {panel.type === 'row' ? heading : <Panel {...given} />}
            </div>
          );
        })}
      </main>
    </>
  );
}

async function draw() {
  const errors = [];
  addEventListener('error', ({ message }) => errors.push(message));
  const given = await (await fetch('data.json')).json();
  // Text is measured before it is drawn: the fonts must be there.
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
  createRoot(document.getElementById('page')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Page {...given} />
    </ThemeContext.Provider>
  );
  setTimeout(() => {
    const titles = [...document.querySelectorAll('h2')].map((title) => title.textContent.trim());
    fetch('drawn', { method: 'POST', body: JSON.stringify([...titles, ...errors]) });
  }, 2000);
}

draw();
