//! Tables for people: columns as wide as their widest cell.

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A heading and its alignment.
pub type Column = (&'static str, Align);

/// A line for the headings and one for each row, with two spaces between columns and no spaces at the end. Widths are counted in
/// characters.
pub fn render<const N: usize>(columns: [Column; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let headings = columns.map(|(heading, _)| heading.to_owned());
    let rows: Vec<[String; N]> = std::iter::once(headings).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell for what may be empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_character() {
        let columns = [("ROOM", Align::Left), ("AGE", Align::Right), ("BY", Align::Left)];
        let rows = [["café", "1", "x"], ["a", "1000", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(render(columns, rows), "ROOM   AGE  BY\ncafé     1  x\na     1000\n");
    }

    #[test]
    fn an_empty_table_has_its_headings() {
        assert_eq!(render([("NODE", Align::Left)], []), "NODE\n");
        assert_eq!(or_dash(""), "-");
    }
}
