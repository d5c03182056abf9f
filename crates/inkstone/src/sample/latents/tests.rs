use super::{pack, unpack};
use crate::golden;

#[test]
fn a_token_is_two_by_two_pixels_channel_by_channel() {
    // Two channels of 2 x 4 pixels.
    let planes: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let want = [0., 1., 4., 5., 8., 9., 12., 13., 2., 3., 6., 7., 10., 11., 14., 15.];
    assert_eq!(pack(&planes, 2, 2, 4), want);
}

#[test]
fn the_reference_packs_its_first_latents_in_the_same_way() {
    let run = golden::tensors("qwen_pipe_img2img.safetensors");
    let noise = run["noise"].to_f32();
    let packed = pack(&noise, 16, 8, 12);
    assert_eq!(packed.len(), run["latents.0"].to_f32().len());
    assert_eq!(unpack(&packed, 16, 8, 12), noise);
}

#[test]
#[should_panic(expected = "latents of 3 x 2")]
fn odd_sides_are_a_fault_of_the_caller() {
    let _ = pack(&[0.0; 6], 1, 2, 3);
}
