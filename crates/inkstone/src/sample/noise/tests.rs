use half::bf16;
use sha2::{Digest, Sha256};

use super::Generator;
use crate::golden;
use crate::sample::latents;

/// `name` is like `qwen.f32.seed42.512x512.packed`.
fn seed_of(name: &str) -> u64 {
    name.split('.').find_map(|part| part.strip_prefix("seed")).unwrap().parse().unwrap()
}

fn sides_of(name: &str) -> (usize, usize) {
    let (w, h) = name.split('.').nth(3).unwrap().split_once('x').unwrap();
    (w.parse().unwrap(), h.parse().unwrap())
}

fn draw(generator: &mut Generator, dtype: &str, n: usize) -> Vec<f32> {
    match dtype {
        "f32" => generator.randn(n),
        "bf16" => generator.randn_bf16(n).into_iter().map(bf16::to_f32).collect(),
        other => panic!("{other}"),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Noise of a picture as each model arranges it. klein draws `[128, h/16, w/16]` and lists pixels.
fn picture_noise(name: &str) -> Vec<f32> {
    let (w, h) = sides_of(name);
    let dtype = name.split('.').nth(1).unwrap();
    let mut generator = Generator::new(seed_of(name));
    if name.starts_with("qwen") {
        return latents::pack(&draw(&mut generator, dtype, 16 * (h / 8) * (w / 8)), 16, h / 8, w / 8);
    }
    let pixels = (h / 16) * (w / 16);
    let drawn = draw(&mut generator, dtype, 128 * pixels);
    (0..pixels).flat_map(|p| (0..128).map(move |c| c * pixels + p)).map(|i| drawn[i]).collect()
}

#[test]
fn small_and_odd_sizes_and_continued_streams_are_torchs_to_the_bit() {
    let mut compared = 0;
    for (name, want) in golden::tensors("noise.safetensors") {
        let mut parts = name.split('.');
        let (kind, dtype) = (parts.next().unwrap(), parts.next().unwrap());
        let mut generator = Generator::new(seed_of(&name));
        let got = match kind {
            "randn" => draw(&mut generator, dtype, want.shape.iter().product()),
            "twice" => {
                let first: usize = name.rsplit('.').next().unwrap().parse().unwrap();
                // The 17-value case goes on after the 15-value one, from the same generator.
                if first == 17 {
                    for n in [15, 20] {
                        let _ = draw(&mut generator, dtype, n);
                    }
                }
                let mut values = draw(&mut generator, dtype, first);
                values.extend(draw(&mut generator, dtype, 20));
                values
            }
            "qwen" | "klein" => picture_noise(&name),
            other => panic!("unknown fixture {other}"),
        };
        assert_eq!(bits(&got), bits(&want.to_f32()), "{name}");
        compared += 1;
    }
    assert!(compared > 40, "{compared} fixtures");
}

#[test]
fn noise_of_whole_pictures_has_torchs_checksum() {
    for (name, want) in golden::json("noise.json")["cpu"].as_object().unwrap() {
        let values = picture_noise(name);
        let every = usize::try_from(want["every"].as_u64().unwrap()).unwrap();
        let sampled: Vec<f32> = values.iter().step_by(every).copied().collect();
        let expected: Vec<f32> = serde_json::from_value(want["values"].clone()).unwrap();
        assert_eq!(sampled, expected, "{name}");

        let mut hash = Sha256::new();
        for value in values {
            if name.contains(".bf16.") {
                hash.update(bf16::from_f32(value).to_le_bytes());
            } else {
                hash.update(value.to_le_bytes());
            }
        }
        assert_eq!(format!("{:x}", hash.finalize()), want["sha256_le_bytes"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn only_the_low_half_of_a_seed_counts_and_the_largest_seed_works() {
    assert_eq!(Generator::new(5).randn(32), Generator::new((1 << 32) + 5).randn(32));
    assert_ne!(Generator::new(5).randn(32), Generator::new(6).randn(32));
    assert_eq!(Generator::new(u64::MAX).randn(32), Generator::new(u64::from(u32::MAX)).randn(32));
}

#[test]
fn nothing_is_drawn_for_no_values() {
    let mut generator = Generator::new(1);
    assert!(generator.randn(0).is_empty());
    assert_eq!(generator.randn(16), Generator::new(1).randn(16));
}
