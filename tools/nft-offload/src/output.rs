// SPDX-License-Identifier: GPL-2.0

//! How things are shown: tables, numbers, colours on a terminal that wants them.

use crate::failure::Failure;
use serde_json::Value;
use std::{
    env,
    io::{self, IsTerminal, Write},
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tone {
    Good,
    Plain,
    Faint,
    Bold,
    Warning,
    Bad,
}

/// Where the answer goes.
pub struct Output<'a> {
    pub to: &'a mut dyn Write,
    pub json: bool,
    pub color: bool,
}

/// Colours are for terminals, unless the variable NO_COLOR is set.
pub fn wants_color() -> bool {
    let asked_not = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !asked_not && env::var_os("TERM").is_none_or(|term| term != "dumb") && io::stdout().is_terminal()
}

impl Output<'_> {
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.to, "{}", text.as_ref())?;
        Ok(())
    }

    pub fn object(&mut self, value: &Value) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut *self.to, value).map_err(io::Error::from)?;
        writeln!(self.to)?;
        Ok(())
    }

    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.into(),
            _ if !self.color => return text.into(),
            Tone::Good => "32",
            Tone::Faint => "2",
            Tone::Bold => "1",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Columns as wide as they have to be; those that begin with a digit in the first row are numbers, at the right.
    pub fn table(&mut self, heads: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..heads.len()).map(width).collect();
        let right: Vec<_> = (0..heads.len())
            .map(|column| rows.iter().all(|row| row[column].starts_with(|c: char| c.is_ascii_digit() || c == '-')))
            .collect();
        let render = |cells: Vec<&str>| {
            let cells = cells.iter().enumerate().map(|(at, cell)| match right[at] {
                true => format!("{cell:>width$}", width = widths[at]),
                false => format!("{cell:<width$}", width = widths[at]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        let head = render(heads.to_vec());
        let head = self.paint(Tone::Bold, &head);
        self.line(head)?;
        for row in rows {
            self.line(render(row.iter().map(String::as_str).collect()))?;
        }
        Ok(())
    }
}

/// `12345` to `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 packet`, `1,234 packets`.
pub fn many(number: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Bytes with three digits, by powers of 1000.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

pub fn nanoseconds(number: u64) -> String {
    scaled(number as f64, 1000.0, &["ns", "us", "ms", "s"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    while number >= step - 0.5 && at + 1 < units.len() {
        number /= step;
        at += 1;
    }
    match number {
        _ if at == 0 => format!("{number} {}", units[0]),
        n if n < 9.995 => format!("{n:.2} {}", units[at]),
        n if n < 99.95 => format!("{n:.1} {}", units[at]),
        n => format!("{n:.0} {}", units[at]),
    }
}

/// Milliseconds as `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        _ => format!("{:.1}%", part as f64 * 100.0 / whole as f64),
    }
}

/// Words on lines of no more than `width`, each beginning with `indent` spaces.
pub fn wrap(text: &str, indent: usize, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let lines: Vec<_> = lines.iter().map(|line| format!("{:indent$}{line}", "")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1234567), "1,234,567");
        assert_eq!(many(1, "rule"), "1 rule");
        assert_eq!(many(2000, "rule"), "2,000 rules");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.00 kB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(nanoseconds(12_345), "12.3 us");
        assert_eq!(duration(400), "0.4 s");
        assert_eq!(duration(3_600_000 * 5), "5 h");
        assert_eq!(percent(1, 0), "-");
        assert_eq!(percent(1, 8), "12.5%");
    }

    #[test]
    fn lines() {
        assert_eq!(wrap("a bb ccc dddd", 2, 8), "  a bb\n  ccc\n  dddd");
        let mut bytes = vec![];
        let mut out = Output { to: &mut bytes, json: false, color: false };
        out.table(&["name", "n"], &[vec!["x".into(), "1".into()], vec!["long".into(), "22".into()]]).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "name   n\nx      1\nlong  22\n");
    }
}
