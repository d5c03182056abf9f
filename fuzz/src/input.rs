//! How the bytes of an input become files.

/// The bytes of a safetensors file. An input that begins with a brace is its header up to the first NUL, and gets the
/// right length in front: else a fuzzer would hardly come beyond that. Any other is the file as it is.
pub(super) fn framed(input: &[u8]) -> Vec<u8> {
    if input.first() != Some(&b'{') {
        return input.to_vec();
    }
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let data = input.get(end + 1..).unwrap_or_default();
    with_length(&input[..end], data)
}

fn with_length(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// The files of an input: `@NAME`, a line feed, the content up to the next line that begins with `@`. Behind the name
/// of a safetensors file there is a number: its content is a header, and so many bytes follow it, the first of them those
/// behind a NUL in the content.
pub(super) fn sections<'a>(input: &'a [u8], names: &[&'static str]) -> Vec<(&'static str, Vec<u8>)> {
    /// The largest number of bytes behind a header.
    const DATA_LIMIT: usize = 16 << 10;
    let section = |part: &'a [u8]| {
        let (head, content) = part.split_at(part.iter().position(|byte| *byte == b'\n')?);
        let content = &content[1..];
        let head = std::str::from_utf8(head).ok()?;
        let (name, bytes) = head.split_once(' ').unwrap_or((head, ""));
        let name = names.iter().find(|known| **known == name)?;
        if !name.ends_with(".safetensors") {
            return Some((*name, content.to_vec()));
        }
        let bytes = bytes.parse::<usize>().unwrap_or(0).min(DATA_LIMIT);
        let end = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
        let own = content.get(end + 1..).unwrap_or_default();
        // All kinds of bits; multiples of a number that shares no divisor with 256.
        let any = |i: usize| (i * 37 + 11).to_le_bytes()[0];
        let data: Vec<u8> = (0..bytes).map(|i| own.get(i).copied().unwrap_or_else(|| any(i))).collect();
        Some((*name, with_length(&content[..end], &data)))
    };
    let mut starts: Vec<usize> = vec![0];
    starts.extend(input.windows(2).enumerate().filter(|(_, pair)| *pair == b"\n@").map(|(i, _)| i + 1));
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([input.len()]);
    let parts = starts.iter().zip(ends).filter_map(|(start, end)| input.get(*start..end)?.strip_prefix(b"@"));
    parts.filter_map(section).collect()
}
