//! Discovery of controllers, where the settings ask for it.

use std::path::Path;

use weft_net::Book;
use weft_runtime::Tasks;

use crate::config::EtcdConfig;

/// File of a data folder with the addresses that were found.
const KEPT: &str = "addresses.json";

/// Fills a book with addresses from etcd, if there is one, from now on. A controller tells its own: `me`.
///
/// Errors: etcd is not reached and no addresses are kept of earlier; this binary cannot do it.
#[cfg(feature = "etcd")]
pub(crate) async fn begin(
    etcd: Option<&EtcdConfig>,
    cluster: &str,
    me: Option<(u64, String)>,
    data: &Path,
    book: &Book,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let Some(etcd) = etcd else {
        return Ok(());
    };
    let discovery = weft_net::Discovery {
        endpoints: etcd.endpoints.clone(),
        cluster: cluster.to_owned(),
        me,
        kept: data.join(KEPT),
    };
    discovery.begin(book.clone(), tasks).await
}

/// The same of a binary without the feature: an error where the settings ask for it.
#[cfg(not(feature = "etcd"))]
pub(crate) async fn begin(
    etcd: Option<&EtcdConfig>,
    _cluster: &str,
    _me: Option<(u64, String)>,
    data: &Path,
    _book: &Book,
    _tasks: &Tasks,
) -> anyhow::Result<()> {
    let Some(etcd) = etcd else {
        return Ok(());
    };
    anyhow::bail!(
        "the settings name etcd at {}, for the addresses in `{}`, and this binary was built without it: build it by `cargo xtask`, or with `--features etcd`",
        etcd.endpoints.join(", "),
        data.join(KEPT).display()
    )
}
