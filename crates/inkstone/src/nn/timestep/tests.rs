use super::*;

#[test]
fn cosines_come_first() {
    let row: Vec<f32> = sinusoids(0.0).collect();
    assert_eq!(row.len(), 256);
    assert!(row[..128].iter().all(|&c| c == 1.0));
    assert!(row[128..].iter().all(|&s| s == 0.0));
}

#[test]
fn values_of_the_reference() {
    // diffusers.models.embeddings.Timesteps(256, True, 0, scale=1000)(torch.tensor([0.75])), elements 0, 1, 127, 128, 255
    let row: Vec<f32> = sinusoids(0.75).collect();
    for (i, want) in
        [(0, -0.666_983), (1, 0.879_756_3), (127, 0.996_753_9), (128, 0.745_072_96), (255, 0.080_508_344)]
    {
        assert!((row[i] - want).abs() < 1e-4, "element {i}: {} is not {want}", row[i]);
    }
}
