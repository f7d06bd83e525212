//! Rows for people: columns that line up on a terminal.

use std::fmt::Write;

/// The rows with their columns two spaces apart, a line each; the last cell of a row is as long as
/// it is. Colours take no width.
pub fn aligned<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        cells.map(|cell| visible(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            let padding = width.saturating_sub(visible(cell)) + 2;
            let _ = write!(line, "{cell}{:padding$}", "");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The characters of a cell that show.
fn visible(cell: &str) -> usize {
    let mut count = 0;
    let mut in_escape = false;
    for c in cell.chars() {
        match c {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ => count += 1,
        }
    }
    count
}
