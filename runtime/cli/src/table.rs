//! Text tables and numbers for people.

use crate::out;

/// Columns between two of a table's.
const GAP: usize = 2;
/// Names are not shortened to less than this.
const SHORTEST: usize = 24;
/// What stands for the middle of a name that is shortened.
const CUT: &str = "..";

/// Rows with a header, columns aligned: the first to the left, the others to the right. In a terminal that is too narrow, long
/// names lose their middle, and columns that do not fit come below, behind the first.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    fitted(header, rows, out::width())
}

fn fitted(header: &[&str], rows: &[Vec<String>], room: Option<usize>) -> String {
    let room = room.unwrap_or(usize::MAX);
    let mut widths: Vec<usize> = header.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // Numbers are short: whatever is long is a name.
    let total = |widths: &[usize]| widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
    while total(&widths) > room
        && let Some(longest) = widths.iter_mut().max().filter(|width| **width > SHORTEST)
    {
        *longest -= 1;
    }
    // The numbers of the columns of each table below the other.
    let mut parts: Vec<Vec<usize>> = vec![];
    for column in 0..header.len() {
        match parts.last_mut() {
            Some(part)
                if total(
                    &[&*part, &[column][..]].concat().iter().map(|c| widths[*c]).collect::<Vec<_>>(),
                ) <= room =>
            {
                part.push(column);
            }
            Some(_) => parts.push(vec![0, column]),
            None => parts.push(vec![column]),
        }
    }
    let line = |part: &[usize], cells: &[&str]| {
        let padded = part.iter().filter_map(|column| {
            let (cell, width) = (shortened(cells.get(*column)?, widths[*column]), widths[*column]);
            Some(if *column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") })
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let table = |part: &Vec<usize>| {
        let lines = std::iter::once(header).chain(cells.iter().map(Vec::as_slice));
        lines.map(|cells| line(part, cells)).collect::<Vec<_>>().join("\n")
    };
    parts.iter().map(table).collect::<Vec<_>>().join("\n\n")
}

/// A text of at most `width` characters: one that is longer loses its middle, since names differ at both ends.
fn shortened(text: &str, width: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(CUT.len());
    let (begin, end) = (&characters[..kept.div_ceil(2)], &characters[characters.len() - kept / 2..]);
    format!("{}{CUT}{}", begin.iter().collect::<String>(), end.iter().collect::<String>())
}

/// `1.23 GFLOP`.
pub(crate) fn flops(n: u64) -> String {
    let n = n as f64;
    let units = [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")];
    match units.iter().find(|(scale, _)| n >= *scale) {
        Some((scale, unit)) => format!("{:.2} {unit}", n / scale),
        None => format!("{n} FLOP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal() {
        let name = "softmax_attention_backward_f32_b1_n2048_h4_63bb65cc9658fc4c_r1of8";
        let row = |name: &str| vec![name.to_owned(), "4".to_owned(), "2.28 GFLOP".to_owned()];
        let rows = [row(name), row("gemm")];
        let table = |room| fitted(&["kernel", "launches", "FLOPs"], &rows, room);
        assert!(table(None).contains(name));
        let narrow = table(Some(60));
        assert!(narrow.lines().all(|line| line.len() <= 60), "{narrow}");
        assert!(narrow.contains("softmax_attention_") && narrow.contains("c_r1of8 "), "{narrow}");
        assert_eq!(narrow.lines().count(), 3);
        // Where even short names leave no room, columns come below.
        let split = table(Some(36));
        assert!(split.lines().all(|line| line.len() <= 36), "{split}");
        let headers: Vec<&str> = split.lines().filter(|line| line.starts_with("kernel")).collect();
        assert!(headers.len() == 2 && headers[1].ends_with("FLOPs"), "{split}");
        assert_eq!(split.matches("2.28 GFLOP").count(), 2);
        assert!(!table(Some(0)).is_empty());
    }
}
