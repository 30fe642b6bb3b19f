//! Times and sizes in attributes: a number and a unit in a string.

use syn::LitStr;

const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// `"30s"` in milliseconds.
pub(crate) fn millis(text: &LitStr) -> syn::Result<u64> {
    read(&text.value(), &TIMES).ok_or_else(|| {
        let says = "a time is a whole number with `ms`, `s`, `m` or `h`, as in \"30s\"";
        syn::Error::new(text.span(), says)
    })
}

/// `"2GiB"` in bytes.
pub(crate) fn bytes(text: &LitStr) -> syn::Result<u64> {
    read(&text.value(), &SIZES).ok_or_else(|| {
        let says = "a size is a whole number with `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` \
                    or `TB`, as in \"2GiB\"";
        syn::Error::new(text.span(), says)
    })
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::{SIZES, TIMES, read};

    #[test]
    fn a_number_and_a_unit() {
        assert_eq!(read("250ms", &TIMES), Some(250));
        assert_eq!(read("5 m", &TIMES), Some(300_000));
        assert_eq!(read("2GiB", &SIZES), Some(2 << 30));
        assert_eq!(read("2GB", &SIZES), Some(2_000_000_000));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "5", "s", "1.5s", "-1s", "5 days", "99999999999999999999s", "6000000000000h"]
        {
            assert_eq!(read(text, &TIMES), None, "{text}");
        }
    }
}
