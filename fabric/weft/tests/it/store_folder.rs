//! Folders as stores: those that hold something, or belong to another server, are refused and stay as they are.

use std::path::Path;

use crate::fixture::Place;
use crate::folder;
use crate::server::{Server, Setup};

fn with_store(store: &Path) -> Setup {
    Setup::default().with("WEFT__STORE", store.display().to_string())
}

/// A project of the web, say, has a folder with one of the names that are swept.
#[test]
fn a_folder_that_holds_something_is_no_store() {
    let place = Place::new();
    let project = place.path("project");
    std::fs::create_dir_all(project.join("components")).expect("it is made");
    let button = project.join("components/button.js");
    std::fs::write(&button, "a button").expect("it is written");
    let before = folder::contents(&project);
    let refused = Server::try_start(&place.data(), &with_store(&project));
    let text = refused.err().expect("it holds something");
    for word in ["components", "owner", "empty folder"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(folder::contents(&project), before);
}

#[test]
fn a_folder_is_the_store_of_one_server() {
    let (place, other) = (Place::new(), Place::new());
    let store = place.path("shared");
    std::fs::create_dir_all(&store).expect("it is made");
    for _ in 0..2 {
        let server = Server::start(&place.data(), &with_store(&store));
        assert!(server.stop().success());
    }
    let before = folder::contents(&store);
    let refused = Server::try_start(&other.data(), &with_store(&store));
    let text = refused.err().expect("it is another's");
    assert!(text.contains("belongs to the cluster"), "{text}");
    assert_eq!(folder::contents(&store), before);
    // The store of another data folder is none either.
    let (place, other) = (Place::new(), Place::new());
    let server = Server::start(&place.data(), &Setup::default());
    assert!(server.stop().success());
    let store = place.data().join("store");
    let refused = Server::try_start(&other.data(), &with_store(&store));
    let text = refused.err().expect("it is another's");
    assert!(text.contains("belongs to the cluster"), "{text}");
}
