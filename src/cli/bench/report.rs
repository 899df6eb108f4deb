//! What benchmarks say: a table for people, or with `--json` one line a figure for programs.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::machine::Machine;

/// How figures are printed.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ReportArgs {
    /// Print JSON instead of a table: a line that describes the machine, then one for each figure as soon as it is known. 'ratio' says how many times as
    /// good as the baseline ours is, whether more of the unit is better or less: above 1 ours is better
    #[arg(long)]
    json: bool,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    name: &'static str,
    /// Whether less of it is better.
    is_cost: bool,
}

impl Unit {
    pub(super) const GB_PER_SECOND: Self = Self::rate("GB/s");
    pub(super) const MILLISECONDS: Self = Self::cost("ms");
    pub(super) const MICROSECONDS: Self = Self::cost("µs");
    pub(super) const CORES: Self = Self::cost("cores");

    /// More is better.
    pub(super) const fn rate(name: &'static str) -> Self {
        Self { name, is_cost: false }
    }

    /// Less is better.
    pub(super) const fn cost(name: &'static str) -> Self {
        Self { name, is_cost: true }
    }
}

/// A figure, and what it is measured against.
#[derive(Debug)]
pub(super) struct Figure {
    bench: &'static str,
    case: String,
    ours: f64,
    unit: Unit,
    baseline: Option<(&'static str, f64)>,
    more: Vec<(&'static str, Value)>,
}

impl Figure {
    /// A figure of a benchmark without a baseline.
    pub(super) fn new(bench: &'static str, case: impl Into<String>, ours: f64, unit: Unit) -> Self {
        Self { bench, case: case.into(), ours, unit, baseline: None, more: vec![] }
    }

    /// Against the figure of another, measured in the same run and in the same unit.
    pub(super) fn against(self, baseline: &'static str, value: f64) -> Self {
        Self { baseline: Some((baseline, value)), ..self }
    }

    /// With a further field. Whole numbers stay what they are, others are rounded.
    pub(super) fn more(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let shown = if value.is_f64() { rounded(value.as_f64().unwrap_or_default()) } else { value };
        self.more.push((name, shown));
        self
    }

    /// How many times as good as the baseline ours is: above 1 it is better, whichever direction the unit runs.
    fn ratio(&self) -> Option<f64> {
        let (_, baseline) = self.baseline?;
        let ratio = if self.unit.is_cost { baseline / self.ours } else { self.ours / baseline };
        Some(ratio).filter(|ratio| ratio.is_finite())
    }

    /// Its cells in the table but for those of `shared` further fields, which are told once.
    fn cells(&self, shared: &[(&'static str, Value)]) -> [String; 5] {
        let with_unit = |value: f64| format!("{} {}", readable(&rounded(value)), self.unit.name);
        let own = self.more.iter().filter(|field| !shared.contains(field));
        [
            self.case.clone(),
            with_unit(self.ours),
            self.baseline.map(|(name, value)| format!("{name} {}", with_unit(value))).unwrap_or_default(),
            self.ratio().map(|ratio| format!("{} x", readable(&rounded(ratio)))).unwrap_or_default(),
            told(own),
        ]
    }
}

/// With the fields of the baseline left out where there is none.
impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bench", self.bench)?;
        map.serialize_entry("case", &self.case)?;
        map.serialize_entry("ours", &rounded(self.ours))?;
        map.serialize_entry("unit", self.unit.name)?;
        if let Some((name, value)) = self.baseline {
            map.serialize_entry("baseline", name)?;
            map.serialize_entry("baseline_value", &rounded(value))?;
            map.serialize_entry("ratio", &self.ratio().map(rounded))?;
        }
        for (name, value) in &self.more {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The figures of a run.
pub(super) struct Report {
    machine: Machine,
    json: bool,
    figures: Vec<Figure>,
}

impl Report {
    /// Begins a run; for programs, says what it runs on.
    pub(super) fn new(bench: &'static str, args: &ReportArgs) -> Self {
        let machine = Machine::this();
        if args.json {
            println!("{}", json!({ "bench": bench, "machine": machine }));
        }
        Self { machine, json: args.json, figures: vec![] }
    }

    /// Takes a figure; for programs, prints it.
    pub(super) fn add(&mut self, figure: Figure) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(&figure)?);
        }
        self.figures.push(figure);
        Ok(())
    }

    /// Ends the run; for people, prints all figures. Without this, after an error, nothing is printed for them.
    pub(super) fn finish(self) {
        if !self.json {
            print!("{}", self.table());
        }
    }

    fn table(&self) -> String {
        // What holds for all figures is told once.
        let is_shared = |field: &&(&'static str, Value)| self.figures.len() > 1 && self.figures.iter().all(|figure| figure.more.contains(field));
        let shared: Vec<_> = self.figures.first().into_iter().flat_map(|figure| &figure.more).filter(is_shared).cloned().collect();
        let mut rows = vec![["case", "tidegate", "baseline", "ratio", ""].map(String::from)];
        rows.extend(self.figures.iter().map(|figure| figure.cells(&shared)));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths = [0, 1, 2, 3, 4].map(width);
        let mut text = format!("{}\n", self.machine);
        if !shared.is_empty() {
            let _ = writeln!(text, "{}", told(shared.iter()));
        }
        text.push('\n');
        for row in &rows {
            let cells = row.iter().zip(widths).filter(|(_, width)| *width > 0);
            let line = cells.map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// What was found so far, as programs see it.
    #[cfg(test)]
    pub(super) fn lines(&self) -> Vec<Value> {
        self.figures.iter().map(|figure| serde_json::to_value(figure).expect("numbers and texts")).collect()
    }
}

/// A bar on standard error, if that is a terminal, for so many steps of something.
pub(super) fn progress(steps: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}  [{bar:40}] {pos}/{len}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_message(what.to_string())
}

/// The value at a share of sorted ones, 0.5 for their median; `None`: there are none.
pub(super) fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied()
}

/// To three significant digits.
fn rounded(number: f64) -> Value {
    let short: f64 = format!("{number:.2e}").parse().unwrap_or(number);
    if short.fract() == 0.0 && short.abs() < 1e15 { json!(short as i64) } else { json!(short) }
}

/// Whole numbers with their thousands set apart, texts without quotes.
fn readable(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            let digits = number.to_string();
            let mut text = String::new();
            for (at, digit) in digits.char_indices() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Further fields as `name value`.
fn told<'a>(fields: impl Iterator<Item = &'a (&'static str, Value)>) -> String {
    fields.map(|(name, value)| format!("{} {}", name.replace('_', " "), readable(value))).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn figures() -> [Figure; 3] {
        [
            Figure::new("decode", "flat-12", 2.3456, Unit::GB_PER_SECOND)
                .against("arrow-json", 0.5)
                .more("records", 100_000)
                .more("records_per_second", 3_210_456.7),
            Figure::new("latency", "3000-p99", 4.0, Unit::MILLISECONDS).against("another", 10.0).more("records", 100_000),
            Figure::new("state", "1000-load", 1_234_567.0, Unit::rate("keys/s")).more("records", 100_000),
        ]
    }

    #[test]
    fn a_figure_is_a_line_in_a_fixed_order() {
        let lines = figures().map(|figure| serde_json::to_string(&figure).unwrap());
        assert_eq!(
            lines,
            [
                r#"{"bench":"decode","case":"flat-12","ours":2.35,"unit":"GB/s","baseline":"arrow-json","baseline_value":0.5,"ratio":4.69,"records":100000,"records_per_second":3210000}"#,
                r#"{"bench":"latency","case":"3000-p99","ours":4,"unit":"ms","baseline":"another","baseline_value":10,"ratio":2.5,"records":100000}"#,
                r#"{"bench":"state","case":"1000-load","ours":1230000,"unit":"keys/s","records":100000}"#,
            ]
        );
    }

    #[test]
    fn a_table_is_aligned_and_tells_once_what_holds_for_all() {
        let mut report = Report::new("decode", &ReportArgs::default());
        for figure in figures() {
            report.add(figure).unwrap();
        }
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "records 100,000");
        assert_eq!(
            lines[3..],
            [
                "case       tidegate          baseline             ratio",
                "flat-12    2.35 GB/s         arrow-json 0.5 GB/s  4.69 x  records per second 3,210,000",
                "3000-p99   4 ms              another 10 ms        2.5 x",
                "1000-load  1,230,000 keys/s",
            ]
        );
    }

    #[test]
    fn numbers_are_short() {
        let shown = |number: f64| readable(&rounded(number));
        assert_eq!([0.0, 0.123456, 1.0, 999.6, 12_345.0, -1_234_567.0].map(shown), ["0", "0.123", "1", "1,000", "12,300", "-1,230,000"]);
        assert_eq!(Figure::new("a", "b", 0.0, Unit::CORES).against("c", 1.0).ratio(), None);
    }
}
