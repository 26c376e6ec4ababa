//! Decimal fields as whole numbers of their last place: so sums are exact and do not depend on the order of records (W4).

use crate::plugin::{Rejection, StageInput};
use crate::record::{Cell, Column, ColumnData, ColumnType};

/// The input columns that hold decimals, each with its field's path and the places behind the point that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Decimals(pub(super) Vec<(usize, String, u8)>);

impl Decimals {
    /// Columns of whole numbers in place of the decimal ones, by their index, and the rows in which one does not fit.
    pub(super) fn convert(&self, input: &StageInput<'_>) -> (Vec<(usize, Column)>, Vec<Rejection>) {
        let mut rejected: Vec<Rejection> = Vec::new();
        let mut convert = |(index, field, places): &(usize, String, u8)| {
            let mut column = Column::new(ColumnType::Int64);
            for row in 0..input.rows {
                match units(input.columns[*index], row, *places) {
                    Ok(Some(value)) => {
                        column.cells.push(Cell::Valid);
                        if let ColumnData::Int64(values) = &mut column.data {
                            values.push(value);
                        }
                    }
                    Ok(None) => column.push_cell(Cell::Missing),
                    Err((code, text)) => {
                        column.push_cell(Cell::Missing);
                        let detail = match code {
                            PLACES => format!("field `{field}`: {text} has more than {places} places behind the point"),
                            _ => format!("field `{field}`: {text} is too large with {places} places behind the point"),
                        };
                        rejected.push(Rejection { row, code: code.to_owned(), detail, fault: None });
                    }
                }
            }
            (*index, column)
        };
        let columns = self.0.iter().map(&mut convert).collect();
        rejected.sort_by_key(|rejection| rejection.row);
        rejected.dedup_by_key(|rejection| rejection.row);
        (columns, rejected)
    }
}

const PLACES: &str = "decimal_places";
const RANGE: &str = "decimal_range";
/// Bytes of a number that a message shows.
const SHOWN_BYTES: usize = 60;

/// A row's decimal as a whole number; none where there is no value, an error with a code and the number where it does not fit.
fn units(column: &Column, row: usize, places: u8) -> Result<Option<i64>, (&'static str, String)> {
    let ColumnData::Packed(packed) = &column.data else { return Ok(None) };
    if column.cells[row] != Cell::Valid {
        return Ok(None);
    }
    let text = packed.get(row);
    let shown = || String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES)]).into_owned();
    whole(text, places).map(Some).map_err(|code| (code, shown()))
}

/// A JSON number times a power of ten, where that is whole and fits.
fn whole(text: &[u8], places: u8) -> Result<i64, &'static str> {
    let (is_negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let digits = || mantissa.iter().filter(|byte| **byte != b'.').map(|byte| byte - b'0');
    // Nothing that fits has more digits than this, whatever its exponent; zeros at either end do not count.
    let first = digits().position(|digit| digit > 0);
    let (Some(first), Some(last)) = (first, digits().collect::<Vec<_>>().iter().rposition(|digit| *digit > 0)) else {
        return Ok(0);
    };
    let exponent = match std::str::from_utf8(exponent.get(1..).unwrap_or_default()) {
        Ok("") => 0,
        // Longer than any exponent that means something.
        Ok(exponent) => exponent.parse::<i32>().unwrap_or(if exponent.starts_with('-') { i32::MIN } else { i32::MAX }),
        Err(_) => return Err(RANGE),
    };
    // The power of ten of the last digit that is no zero, in units of the last place that is kept.
    let power = point as i64 - 1 - last as i64 + i64::from(exponent) + i64::from(places);
    if power < 0 {
        return Err(PLACES);
    }
    if last - first >= 19 || power > 19 {
        return Err(RANGE);
    }
    let mantissa = digits().skip(first).take(last + 1 - first).fold(0_i128, |sum, digit| sum * 10 + i128::from(digit));
    let value = mantissa * 10_i128.pow(power as u32);
    i64::try_from(if is_negative { -value } else { value }).map_err(|_| RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_its_number_of_last_places_or_refused() {
        for (text, places, expected) in [
            ("0", 2, Ok(0)),
            ("-0.000", 0, Ok(0)),
            ("12.3", 2, Ok(1_230)),
            ("-12.34", 2, Ok(-1_234)),
            ("12.340000000000000000000000", 2, Ok(1_234)),
            ("12.345", 2, Err(PLACES)),
            ("1e-2", 2, Ok(1)),
            ("1E-3", 2, Err(PLACES)),
            ("1.5e3", 0, Ok(1_500)),
            ("1.5e+3", 0, Ok(1_500)),
            ("0.00000000000000000001e20", 0, Ok(1)),
            ("100000000000000000000e-20", 0, Ok(1)),
            ("0e999999999999", 2, Ok(0)),
            ("1e999999999999", 2, Err(RANGE)),
            ("1e-999999999999", 2, Err(PLACES)),
            ("92233720368547758.07", 2, Ok(i64::MAX)),
            ("-92233720368547758.08", 2, Ok(i64::MIN)),
            ("92233720368547758.08", 2, Err(RANGE)),
            ("9999999999999999999999", 0, Err(RANGE)),
        ] {
            assert_eq!(whole(text.as_bytes(), places), expected, "{text} with {places} places");
        }
    }
}
