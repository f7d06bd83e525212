//! The benchmark's one table.

use std::fmt::Write;

pub struct Row {
    what: String,
    figure: String,
    yardstick: String,
    ratio: String,
    target: String,
}

impl Row {
    /// A figure that stands alone.
    pub fn figure(what: &str, figure: String) -> Row {
        Row {
            what: what.to_string(),
            figure,
            yardstick: String::new(),
            ratio: String::new(),
            target: String::new(),
        }
    }

    /// A figure and what it is to be read beside.
    pub fn beside(what: &str, figure: String, yardstick: String) -> Row {
        Row {
            yardstick,
            ..Row::figure(what, figure)
        }
    }

    /// A figure that must not be larger than `bound`, unless that is 0.
    pub fn bound(what: &str, figure: f64, bound: f64, unit: &str) -> Row {
        let target = match bound > 0.0 {
            true => format!("≤ {bound} {unit}{}", verdict(figure <= bound)),
            false => String::new(),
        };
        Row {
            target,
            ..Row::figure(what, format!("{figure:.2} {unit}"))
        }
    }

    /// Paired rates of the scheduler and its yardstick: the median of their ratios counts.
    pub fn ratio(what: &str, yardstick: &str, pairs: &[(f64, f64)], least: f64) -> Row {
        let mut ratios: Vec<f64> = pairs.iter().map(|(one, other)| one / other).collect();
        let mut ones: Vec<f64> = pairs.iter().map(|(one, _)| *one).collect();
        let mut others: Vec<f64> = pairs.iter().map(|(_, other)| *other).collect();
        let ratio = median(&mut ratios);
        let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        Row {
            yardstick: format!("{yardstick}: {}", rate(median(&mut others))),
            ratio: format!("{ratio:.2} (of {})", all.join(", ")),
            target: match least > 0.0 {
                true => format!("≥ {least}{}", verdict(ratio >= least)),
                false => String::new(),
            },
            ..Row::figure(what, rate(median(&mut ones)))
        }
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "" } else { " **missed**" }
}

fn rate(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub struct Table {
    text: String,
}

impl Table {
    pub fn new() -> Table {
        let text = "| What | job-scheduler | Yardstick | Ratio | Target |\n| --- | --- | --- | --- | --- |\n";
        print!("{text}");
        Table {
            text: text.to_string(),
        }
    }

    /// Prints each row as soon as it is known.
    pub fn add(&mut self, row: Row) {
        let Row {
            what,
            figure,
            yardstick,
            ratio,
            target,
        } = row;
        let line = format!("| {what} | {figure} | {yardstick} | {ratio} | {target} |");
        println!("{line}");
        let _ = writeln!(self.text, "{line}");
    }

    pub fn write(&self) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.md");
        std::fs::write(file, &self.text).unwrap();
        println!("\nwritten to {file}");
    }
}
