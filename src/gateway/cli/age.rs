//! Lengths of time as people read them.

/// The two biggest units: `5s`, `2m5s`, `3h12m`, `4d2h`. What lies in the future counts as now.
pub(super) fn compact(seconds: f64) -> String {
    // Saturates; not a number counts as zero.
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => two(minutes, "m", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

fn two(big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_at_most() {
        for (seconds, shown) in [
            (-3.0, "0s"),
            (f64::NAN, "0s"),
            (0.9, "0s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (125.0, "2m5s"),
            (3600.0, "1h"),
            (11_520.0, "3h12m"),
            (86_399.0, "23h59m"),
            (352_800.0, "4d2h"),
            (f64::INFINITY, "213503982334601d7h"),
        ] {
            assert_eq!(compact(seconds), shown);
        }
    }
}
