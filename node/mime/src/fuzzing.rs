//! What fuzzers and seeded tests run: any octets in, every promise of the crate checked. Panics if one is broken.

use crate::{Kind, Scanner, Structure, decode_body, decode_header_text, fields, header_fields, parse_date};

/// Scans the octets whole and cut at places that the octets themselves choose, and checks that both agree, that every
/// range lies in its parent's, and that the other readers survive them too.
///
/// # Panics
/// If a promise is broken.
pub fn run(input: &[u8]) {
    let whole = scan(input, input.len().max(1));
    let step = usize::from(input.first().copied().unwrap_or(0) % 7).saturating_add(1);
    assert_eq!(whole, scan(input, step), "a split changed the structure");
    check(&whole, input.len() as u64);
    let bytes = whole.to_bytes();
    if !bytes.is_empty() {
        assert_eq!(
            Structure::from_bytes(&bytes).ok().as_ref(),
            Some(&whole),
            "the encoding lost something"
        );
    }
    let _ = Structure::from_bytes(input);
    let _ = parse_date(input);
    let _ = decode_header_text(input);
    for part in whole.parts.iter().take(50) {
        let range = usize::try_from(part.body_start)
            .ok()
            .zip(usize::try_from(part.end).ok());
        let body = range.and_then(|(start, end)| input.get(start..end)).unwrap_or_default();
        let _ = decode_body(body, &part.encoding, part.charset());
    }
    let names: Vec<&[u8]> = fields(input).map(|field| field.name).take(10).collect();
    let _ = header_fields(input, &names, false);
    let _ = header_fields(input, &names, true);
    let path: Vec<u32> = input.iter().take(4).map(|byte| u32::from(byte % 4)).collect();
    let _ = whole.find_part(&path);
}

fn scan(input: &[u8], step: usize) -> Structure {
    let mut scanner = Scanner::new();
    input.chunks(step).for_each(|chunk| scanner.feed(chunk));
    scanner.finish()
}

/// Checks what every structure of a message of `length` octets must be.
///
/// # Panics
/// If it is not.
pub fn check(structure: &Structure, length: u64) {
    assert!(!structure.parts.is_empty(), "no part");
    let children = structure.child_lists();
    for ((index, part), children) in (0_u32..).zip(&structure.parts).zip(&children) {
        assert!(
            part.header_start <= part.body_start && part.body_start <= part.end,
            "ranges out of order: {part:?}"
        );
        assert!(part.end <= length, "range beyond the message: {part:?}");
        assert_eq!(part.parent.is_none(), index == 0, "only the message has no parent");
        assert_eq!(
            part.kind == Kind::Leaf,
            children.is_empty(),
            "kind and children: {part:?}"
        );
        let mut floor = part.body_start;
        for child in children {
            let child = usize::try_from(*child)
                .ok()
                .and_then(|child| structure.parts.get(child));
            let Some(child) = child else { continue };
            assert!(
                child.header_start >= floor && child.end <= part.end,
                "not nested: {child:?} in {part:?}"
            );
            floor = child.end;
        }
        assert!(part.lines <= part.body_bytes(), "more lines than octets: {part:?}");
    }
    let root = structure.parts.first();
    assert!(
        root.is_some_and(|root| root.header_start == 0 && root.end == length),
        "the message is not all of it"
    );
    assert!(structure.preview.chars().count() <= 256, "preview too long");
}
