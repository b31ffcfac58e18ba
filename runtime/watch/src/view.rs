//! What is drawn of runs: a chart of the loss, a chart of another quantity, a table, layers and alerts.

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};

use crate::curve::Curve;
use crate::run::Run;
use crate::text::{ALERTS, COLUMNS, cells};
use crate::watched::Watched;

/// Of Okabe and Ito, which colour-blind people tell apart; the first is the terminal's own.
const COLORS: [Color; 7] = [
    Color::Reset,
    Color::Rgb(86, 180, 233),
    Color::Rgb(230, 159, 0),
    Color::Rgb(0, 158, 115),
    Color::Rgb(204, 121, 167),
    Color::Rgb(213, 94, 0),
    Color::Rgb(240, 228, 66),
];

/// Rows of a chart below which the second is left out.
const CHART_ROWS: u16 = 8;
/// Runs of which layers and alerts are told beside the table.
const TOLD: usize = 4;

/// A curve of a run in a chart.
struct Drawn {
    /// Its number, which gives it a colour.
    run: usize,
    curve: Curve,
    points: Vec<(f64, f64)>,
}

/// How it is drawn, which keys change.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Number of the second chart's quantity in [`Curve::SECOND`].
    pub(crate) second: usize,
    /// The loss on a logarithmic axis.
    pub(crate) log: bool,
    /// The first half of the steps, which are steep, is left out.
    pub(crate) tail: bool,
    pub(crate) color: bool,
    /// What went wrong with the last look.
    pub(crate) trouble: Option<String>,
}

impl View {
    pub(crate) fn new(color: bool) -> View {
        View { second: 0, log: false, tail: false, color, trouble: None }
    }

    fn style(&self, number: usize) -> Style {
        match self.color {
            true => Style::new().fg(COLORS[number % COLORS.len()]),
            false => Style::new(),
        }
    }

    /// Fills a terminal of any size: what does not fit is left out from below.
    pub(crate) fn draw(&self, watched: &Watched, now: SystemTime, frame: &mut Frame<'_>) {
        let told = self.told(watched);
        let table_rows = watched.runs.len() as u16 + 1;
        let below = table_rows + told.len() as u16;
        let all = frame.area();
        let charts = all.height.saturating_sub(below.min(all.height / 2) + 2);
        let [head, charts, table, rest, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(charts),
            Constraint::Length(table_rows.min(all.height / 2)),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(all);
        let title = match &self.trouble {
            Some(trouble) => format!("linc watch: {}", trouble.lines().next().unwrap_or_default()),
            None => "linc watch".to_owned(),
        };
        frame.render_widget(Line::from(title).style(Modifier::BOLD), head);
        if charts.height >= 2 * CHART_ROWS {
            let [first, second] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(charts);
            self.chart(watched, &[Curve::Loss, Curve::Validation], frame, first);
            self.chart(watched, &[self.second_curve()], frame, second);
        } else {
            self.chart(watched, &[Curve::Loss, Curve::Validation], frame, charts);
        }
        self.table(watched, now, frame, table);
        frame.render_widget(Paragraph::new(told), rest);
        let help = "q quit  Tab other curve  l logarithmic  t second half only";
        frame.render_widget(Line::from(help).style(Modifier::DIM), keys);
    }

    fn second_curve(&self) -> Curve {
        Curve::SECOND[self.second % Curve::SECOND.len()]
    }

    /// Layers of the first runs, and the last alerts.
    fn told(&self, watched: &Watched) -> Vec<Line<'static>> {
        let mut lines = vec![];
        for (number, run) in watched.runs.iter().enumerate().take(TOLD) {
            if !run.model.is_empty() {
                lines.push(Line::styled(format!("{}: {}", name(run), run.model), self.style(number)));
            }
            if let Some(health) = run.linear_layers() {
                lines.push(Line::styled(format!("  linear layers: {health}"), self.style(number)));
            }
            for alert in run.alerts.iter().rev().take(ALERTS / watched.runs.len().min(ALERTS)).rev() {
                let text = format!("  {} at step {}: {}", alert.level, alert.step, alert.message);
                lines.push(Line::styled(text, self.style(number).add_modifier(Modifier::BOLD)));
            }
        }
        lines
    }

    fn chart(&self, watched: &Watched, curves: &[Curve], frame: &mut Frame<'_>, area: Rect) {
        let is_log = self.log && curves[0] == Curve::Loss;
        let most = 2 * usize::from(area.width);
        let from = if self.tail { watched.runs.iter().map(Run::step).max().unwrap_or(0) / 2 } else { 0 };
        let mut drawn: Vec<Drawn> = vec![];
        for (number, run) in watched.runs.iter().enumerate() {
            for curve in curves {
                let records = if *curve == Curve::Validation { &run.validations } else { &run.records };
                let begin = records.partition_point(|record| record.step < from);
                let mut points = curve.points(&records[begin..], most);
                if is_log {
                    points.retain(|point| point.1 > 0.0);
                    points.iter_mut().for_each(|point| point.1 = point.1.log10());
                }
                drawn.push(Drawn { run: number, curve: *curve, points });
            }
        }
        let all = || drawn.iter().flat_map(|drawn| drawn.points.iter());
        let (x, y) = (bounds(all().map(|point| point.0)), bounds(all().map(|point| point.1)));
        let datasets = drawn.iter().map(|Drawn { run, curve, points }| {
            // A validation is a few points: they are seen beside a line.
            let (marker, graph) = match curve {
                Curve::Validation => (Marker::Dot, GraphType::Scatter),
                _ => (Marker::Braille, GraphType::Line),
            };
            Dataset::default().marker(marker).graph_type(graph).style(self.style(*run)).data(points)
        });
        let value = |value: f64| short(if is_log { 10f64.powf(value) } else { value });
        let middle = |bounds: [f64; 2]| f64::midpoint(bounds[0], bounds[1]);
        let labels = [value(y[0]), value(middle(y)), value(y[1])];
        let title = match (curves[0], is_log) {
            (Curve::Loss, false) => format!("{} (dots: validation)", Curve::Loss.title()),
            (Curve::Loss, true) => format!("{}, logarithmic (dots: validation)", Curve::Loss.title()),
            (other, _) => other.title().to_owned(),
        };
        let steps = [format!("{:.0}", x[0]), format!("step {:.0}", x[1])];
        let chart = Chart::new(datasets.collect())
            .block(Block::bordered().title(title))
            .legend_position(None)
            .x_axis(Axis::default().bounds(x).labels(steps))
            .y_axis(Axis::default().bounds(y).labels(labels));
        frame.render_widget(chart, area);
    }

    fn table(&self, watched: &Watched, now: SystemTime, frame: &mut Frame<'_>, area: Rect) {
        let rows: Vec<[String; 9]> = watched
            .runs
            .iter()
            .map(|run| {
                let mut cells = cells(run, now);
                cells[0] = name(run);
                cells
            })
            .collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([COLUMNS[column].len()]).max().unwrap_or(0) as u16
        };
        let widths = (0..COLUMNS.len()).map(|column| match column {
            0 => Constraint::Min(8),
            _ => Constraint::Length(width(column)),
        });
        let header = Row::new(COLUMNS).style(Modifier::BOLD);
        let styled = rows.iter().enumerate().map(|(number, row)| {
            let cells = row.iter().map(|cell| Span::styled(cell.clone(), self.style(number)));
            Row::new(cells.map(Line::from))
        });
        let table = Table::new(styled.collect::<Vec<_>>(), widths).header(header).column_spacing(1);
        frame.render_widget(table, area);
    }
}

/// The name of a run's folder.
fn name(run: &Run) -> String {
    run.folder.file_name().map_or_else(|| run.folder.display().to_string(), |name| name.display().to_string())
}

/// The least and the greatest value, some way apart.
fn bounds(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (f64::min(low, value), f64::max(high, value))
    });
    match (low.is_finite(), high > low) {
        (false, _) => [0.0, 1.0],
        (true, true) => [low, high],
        (true, false) => [low - low.abs().max(1e-9) / 2.0, low + low.abs().max(1e-9) / 2.0],
    }
}

/// A number in a few characters.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.1e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use linc_train::metrics::Record;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// A run of 40 steps whose loss falls from 4, with validations and an alert.
    fn run(folder: &Path, name: &str) {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let mut text = String::new();
        for step in 1..=40 {
            let memory = [("parameters".to_owned(), 3u64 << 29)].into();
            let loss = 4.0 / (step as f64).sqrt();
            let record = Record {
                loss: Some(loss),
                lr: Some(1e-4 * step as f64),
                tps: Some(1234.0),
                step_ms: Some(1500.0),
                memory,
                ..Record::new(step, 0)
            };
            text += &(serde_json::to_string(&record).expect("JSON") + "\n");
            if step % 20 == 0 {
                let record = Record { validation_loss: Some(loss + 0.125), ..Record::new(step, 0) };
                text += &(serde_json::to_string(&record).expect("JSON") + "\n");
            }
        }
        fs::write(folder.join("metrics.jsonl"), text).expect("written");
        fs::write(folder.join("config.toml"), "[training]\nsteps = 100\n").expect("written");
        let alert = "{\"step\":33,\"level\":\"warn\",\"kind\":\"slow\",\"message\":\"fewer tokens\"}\n";
        fs::write(folder.join("alerts.jsonl"), alert).expect("written");
    }

    fn drawn(watched: &Watched, view: &View, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| view.draw(watched, SystemTime::now(), frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
    }

    fn has_curve(text: &str) -> bool {
        text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
    }

    #[test]
    fn runs_are_drawn_with_their_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        run(folder.path(), "one");
        run(folder.path(), "two");
        let watched = Watched::open(&[folder.path().to_path_buf()]).expect("runs");
        let mut view = View::new(true);
        let text = drawn(&watched, &view, (100, 40));
        assert!(has_curve(&text), "{text}");
        for words in ["loss, nats per token", "learning rate", "step 40", "4.000", "0.632", "•"] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        for words in ["one ", "two ", "running", "40/100", "0.6325", "0.7575", "1,234", "1.50 GiB", "1:30"] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        assert_eq!(text.matches("warn at step 33: fewer tokens").count(), 2, "{text}");
        assert!(text.contains("one: llama3 debugmodel"), "{text}");
        view.second = 1;
        (view.log, view.tail) = (true, true);
        let text = drawn(&watched, &view, (100, 40));
        assert!(text.contains("tokens per second") && text.contains("logarithmic"), "{text}");
        assert!(text.contains("20") && !text.contains("4.000"), "the first half is left out: {text}");
    }

    #[test]
    fn every_size_of_terminal_is_drawn_on() {
        let folder = tempfile::tempdir().expect("a folder");
        run(folder.path(), "one");
        for name in ["empty", "broken"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("empty/metrics.jsonl"), "").expect("written");
        fs::write(folder.path().join("broken/metrics.jsonl"), "{\"step\":-1}\n\0\n{}").expect("written");
        let watched = Watched::open(&[folder.path().to_path_buf()]).expect("runs");
        let mut view = View::new(false);
        for size in [(0, 0), (1, 1), (10, 3), (20, 10), (80, 24), (300, 100)] {
            for second in 0..Curve::SECOND.len() {
                (view.second, view.log) = (second, second % 2 == 1);
                let text = drawn(&watched, &view, size);
                assert!(size.1 < 24 || (text.contains("waiting") && has_curve(&text)), "{text}");
            }
        }
    }

    #[test]
    fn bounds_are_apart() {
        assert_eq!(bounds([].into_iter()), [0.0, 1.0]);
        assert_eq!(bounds([2.0, 2.0].into_iter()), [1.0, 3.0]);
        assert_eq!(bounds([3.0, -1.0].into_iter()), [-1.0, 3.0]);
        let same = bounds([0.0].into_iter());
        assert!(same[0] < 0.0 && same[1] > 0.0);
        assert_eq!([0.0, 1.5, 123.4, 2.5e7, 1e-5].map(short), ["0", "1.500", "123", "2.5e7", "1.0e-5"]);
    }
}
