//! What the store of an embedded cluster keeps. Alone in its process, because it looks at all files of that.

use allhands::{Cluster, Parallel};

#[allhands::test]
fn what_nobody_holds_any_more_leaves_the_store() {
    let cluster = Cluster::embedded().slots(1).start().unwrap();
    let parallel = Parallel::new().on(&cluster);
    // Ten times what one of them takes; a store that kept them would have all of it.
    for n in 0..10u64 {
        let length = |array: Vec<u64>| array.len();
        assert_eq!(parallel.map([vec![n; 1 << 20]], length).unwrap(), [1 << 20]);
    }
    let temporary = std::env::temp_dir();
    let own = format!("allhands-{}-", std::process::id());
    let folders = temporary.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let blobs = folders
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&own))
        .map(|path| path.join("blobs/blobs"))
        .filter_map(|path| path.read_dir().ok())
        .map(Iterator::count)
        .sum::<usize>();
    assert!(blobs <= 2, "{blobs} files are left of 10 arguments");
}
