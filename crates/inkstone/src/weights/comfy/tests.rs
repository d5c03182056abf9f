use std::path::Path;

use inkstone_tensor::Device;

use super::*;

const LAYER: &str = "model.diffusion_model.a.to_q";

/// A tensor of a file: the end of its name, type, shape, bytes.
type Part = (&'static str, &'static str, Vec<usize>, Vec<u8>);

/// A file with one layer of 4 outputs and 128 inputs, all zero, and what is noted in its header.
fn file(parts: &[Part], listed: Option<&str>) -> SafeTensors {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (end, dtype, shape, bytes) in parts {
        let begin = data.len();
        data.extend(bytes);
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(format!("{LAYER}{end}"), entry);
    }
    if let Some(listed) = listed {
        header.insert("__metadata__".into(), serde_json::json!({NOTES: listed}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    SafeTensors::from_bytes(Path::new("x"), &bytes, &Device::cpu(&Default::default()).unwrap()).unwrap()
}

fn weight() -> Part {
    (WEIGHT, "I8", vec![4, 128], vec![1; 512])
}

fn scale(shape: &[usize]) -> Part {
    let count = shape.iter().product();
    (SCALE, "F32", shape.to_vec(), [0.5f32.to_le_bytes()].repeat(count).concat())
}

fn note(text: &str) -> Part {
    (NOTE, "U8", vec![text.len()], text.as_bytes().to_vec())
}

const PLAIN: &str = r#"{"format": "int8_tensorwise"}"#;
const ROTATED: &str =
    r#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 64, "per_row": true}"#;

/// The name of the matrix's format, or why there is none.
fn joined(mut file: SafeTensors) -> Result<String, NoteProblem> {
    match join(Component::Transformer, &mut file) {
        Ok(()) => {
            assert_eq!(file.tensors.keys().collect::<Vec<_>>(), Vec::<&String>::new());
            Ok(file.quantized[&format!("{LAYER}{WEIGHT}")].format())
        }
        Err(Error::Note { component: "transformer", layer, problem }) => {
            assert!([LAYER, NOTES].contains(&layer.as_str()), "{layer}");
            Err(problem)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn parts_become_a_matrix() {
    let rotated = Ok("int8, rotated in groups of 64".to_owned());
    for shape in [&[4, 1][..], &[4], &[1], &[]] {
        assert_eq!(joined(file(&[weight(), scale(shape), note(ROTATED)], None)), rotated);
    }
    let inside = r#"{"format": "int8_tensorwise", "params": {"convrot": true, "convrot_groupsize": 64}}"#;
    assert_eq!(joined(file(&[weight(), scale(&[4, 1]), note(inside)], None)), rotated);
    assert_eq!(joined(file(&[weight(), scale(&[4, 1]), note(PLAIN)], None)), Ok("int8".to_owned()));
    let not = r#"{"format": "int8_tensorwise", "convrot": false, "convrot_groupsize": 64}"#;
    assert_eq!(joined(file(&[weight(), scale(&[4, 1]), note(not)], None)), Ok("int8".to_owned()));
    // In the header, with the prefix and without.
    for layer in [LAYER, "a.to_q"] {
        let listed = format!(r#"{{"format_version": "1.0", "layers": {{"{layer}": {ROTATED}}}}}"#);
        assert_eq!(joined(file(&[weight(), scale(&[4, 1])], Some(&listed))), rotated);
    }
    let halves = (SCALE, "BF16", vec![4, 1], [0x80, 0x3f].repeat(4));
    assert_eq!(joined(file(&[weight(), halves, note(ROTATED)], None)), rotated);
}

#[test]
fn lying_notes_are_refused() {
    let refused = |text: &str| joined(file(&[weight(), scale(&[4, 1]), note(text)], None)).unwrap_err();
    let twice = r#"{"format": "int8_tensorwise", "format": "float8_e4m3fn"}"#;
    let long = format!("{PLAIN}{}", " ".repeat(NOTE_LIMIT_BYTES));
    let wrong_types = r#"{"format": "int8_tensorwise", "convrot": 1}"#;
    let negative = r#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": -64}"#;
    for text in ["", "{", "[]", "not JSON", twice, &long, wrong_types, negative] {
        assert!(matches!(refused(text), NoteProblem::Unreadable { .. }), "{text}");
    }
    // What older programs wrote.
    assert_eq!(refused(r#"{"convrot": true, "per_row": true}"#), NoteProblem::NoFormat);
    for format in ["nvfp4", "mxfp8", "convrot_w4a4", "", "INT8_TENSORWISE"] {
        let text = format!(r#"{{"format": "{format}"}}"#);
        assert_eq!(refused(&text), NoteProblem::Format { format: format.into() });
    }
    for group in [0, 2, 3, 8, 32, 128, 256, 1024, u64::MAX] {
        let text =
            format!(r#"{{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": {group}}}"#);
        assert_eq!(refused(&text), NoteProblem::Group { group, n_in: 128 });
    }
    // 256 where the note does not say, which does not divide 128.
    let text = r#"{"format": "int8_tensorwise", "convrot": true}"#;
    assert_eq!(refused(text), NoteProblem::Group { group: 256, n_in: 128 });
    let listed = joined(file(&[weight(), scale(&[4, 1])], Some(r#"{"layers": []}"#)));
    assert!(matches!(listed, Err(NoteProblem::Unreadable { .. })), "{listed:?}");
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let number = |v: f32| (SCALE, "F32", vec![4, 1], [1.0, v, 1.0, 1.0].map(f32::to_le_bytes).concat());
    let bad: [&[Part]; 12] = [
        &[weight(), note(ROTATED)],
        &[scale(&[4, 1]), note(ROTATED)],
        &[weight(), scale(&[3, 1]), note(ROTATED)],
        &[weight(), scale(&[1, 4]), note(ROTATED)],
        &[weight(), scale(&[4, 2]), note(ROTATED)],
        &[weight(), scale(&[0]), note(ROTATED)],
        &[weight(), number(f32::NAN), note(ROTATED)],
        &[weight(), number(f32::INFINITY), note(ROTATED)],
        &[weight(), (SCALE, "I8", vec![4, 1], vec![0; 4]), note(ROTATED)],
        &[(WEIGHT, "F8_E4M3", vec![4, 128], vec![1; 512]), scale(&[4, 1]), note(ROTATED)],
        &[(WEIGHT, "I8", vec![2, 2, 128], vec![1; 512]), scale(&[4, 1]), note(ROTATED)],
        &[weight(), scale(&[4, 1]), (INPUT_FACTORS, "BF16", vec![128], vec![0; 256]), note(ROTATED)],
    ];
    for parts in bad {
        let got = joined(file(parts, None));
        assert!(matches!(got, Err(NoteProblem::Parts { .. })), "{got:?}: {parts:?}");
    }
    // Nothing says whether it is rotated.
    assert_eq!(joined(file(&[weight(), scale(&[4, 1])], None)), Err(NoteProblem::Missing));
    let numbers = (NOTE, "F32", vec![1], vec![0; 4]);
    let got = joined(file(&[weight(), scale(&[4, 1]), numbers], None));
    assert!(matches!(got, Err(NoteProblem::Unreadable { .. })), "{got:?}");
}
