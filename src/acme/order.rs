//! One order: from the account to the certificate.

use std::error::Error as _;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenges::Posed;
use super::client::{Http, Seen};
use super::storage::Storage;
use super::{Managed, Method, Settings, Site};

/// How long the authority may take to validate names, and then to issue.
const STEP: Duration = Duration::from_secs(120);

/// Why there is no certificate.
pub struct Failure {
    pub why: String,
    /// The authority did not answer, or not as one.
    pub unreachable: bool,
    /// It wants fewer orders.
    pub limited: bool,
    /// Not before then is it to be asked again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn local(why: impl Into<String>) -> Self {
        Self { why: why.into(), unreachable: false, limited: false, retry_after: None }
    }
}

/// Gets a certificate: its key and its chain in PEM. Whoever calls has the lock of the storage.
pub async fn obtain(site: &Site, managed: &Managed, storage: &Storage) -> Result<Vec<u8>, Failure> {
    let seen = Seen::default();
    let obtained = Obtaining { site, managed, storage, seen: &seen }.run().await;
    obtained.map_err(|trouble| trouble.into_failure(&seen))
}

/// What went wrong, before it is known what to make of it.
enum Trouble {
    Authority(Error),
    Words(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Authority(error)
    }
}

impl Trouble {
    fn into_failure(self, seen: &Seen) -> Failure {
        let retry_after = seen.retry_after();
        match self {
            Self::Words(why) => Failure { retry_after, ..Failure::local(why) },
            Self::Authority(Error::Api(problem)) => {
                let kind = problem.r#type.as_deref().unwrap_or_default();
                let limited = kind.ends_with(":rateLimited") || problem.status == Some(429);
                Failure { why: problem.to_string(), unreachable: false, limited, retry_after }
            }
            Self::Authority(error) => {
                // A Retry-After without a problem document comes from what stands in front of it.
                let unreachable = !seen.any();
                Failure { why: words(&error), unreachable, limited: retry_after.is_some(), retry_after }
            }
        }
    }
}

/// An error and what it came from.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

struct Obtaining<'a> {
    site: &'a Site,
    managed: &'a Managed,
    storage: &'a Storage,
    seen: &'a Seen,
}

impl Obtaining<'_> {
    async fn run(&self) -> Result<Vec<u8>, Trouble> {
        let account = self.account().await?;
        let names: Vec<Identifier> = self.managed.domains.iter().cloned().map(Identifier::Dns).collect();
        let mut order = match account.new_order(&NewOrder::new(&names)).await {
            Err(Error::Api(problem)) if is_unknown(problem.r#type.as_deref()) => {
                // It forgot us, or was set up anew: the next try begins with a new account.
                let _ = self.storage.forget_account("the authority does not know it");
                return Err(Error::Api(problem).into());
            }
            order => order?,
        };
        // As long as these are there the authority finds what it asks for.
        let posed = self.pose(&mut order).await?;
        let policy = RetryPolicy::new().timeout(STEP);
        let status = order.poll_ready(&policy).await;
        drop(posed);
        match status {
            Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => {}
            Ok(OrderStatus::Pending | OrderStatus::Invalid) => return Err(refused(&mut order).await),
            Err(Error::Api(problem)) => {
                // The order says that, the authorization says why.
                let Trouble::Words(why) = refused(&mut order).await else { return Err(Error::Api(problem).into()) };
                return Err(Trouble::Words(why));
            }
            Err(error) => return Err(error.into()),
        }
        let (key, request) = signing_request(&self.managed.domains).map_err(Trouble::Words)?;
        order.finalize_csr(&request).await?;
        let chain = order.poll_certificate(&policy).await?;
        Ok([key.as_bytes(), b"\n", chain.as_bytes()].concat())
    }

    async fn account(&self) -> Result<Account, Trouble> {
        let Settings { directory, contact, eab, .. } = &self.site.settings;
        let http = Http::new(&self.site.settings, self.seen.clone()).map_err(Trouble::Words)?;
        let builder = Account::builder_with_http(Box::new(http));
        let cannot = |error: std::io::Error| Trouble::Words(format!("the ACME account cannot be kept: {error}"));
        if let Some(credentials) = self.storage.account().map_err(cannot)? {
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        // That the terms are agreed to is checked with the configuration.
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let eab = eab.as_ref().map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
        let (account, credentials) = builder.create(&new, directory.clone(), eab.as_ref()).await?;
        self.storage.save_account(&credentials).map_err(cannot)?;
        Ok(account)
    }

    /// Has the authority validate every name that it does not know as ours yet.
    async fn pose(&self, order: &mut Order) -> Result<Vec<Posed>, Trouble> {
        let kind = match self.managed.method {
            Method::Http01 => ChallengeType::Http01,
            Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut posed = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(Trouble::Words("an authorization was given up by the authority".to_owned())),
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                return Err(Trouble::Words(format!(
                    "the authority does not validate {name} this way: use another `challenge`"
                )));
            };
            let answer = challenge.key_authorization();
            let challenges = &self.site.challenges;
            posed.push(match self.managed.method {
                Method::Http01 => challenges.pose_request(&challenge.token, &answer),
                Method::TlsAlpn01 => challenges.pose_handshake(&name, &answer).map_err(Trouble::Words)?,
            });
            challenge.set_ready().await?;
        }
        Ok(posed)
    }
}

fn is_unknown(kind: Option<&str>) -> bool {
    kind.is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
}

/// Why names could not be validated.
async fn refused(order: &mut Order) -> Trouble {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Err(error) = authorization.refresh().await {
            return error.into();
        }
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|error| format!("{}: {error}", authorization.identifier())));
    }
    if reasons.is_empty() {
        reasons.push("the authority gave the order up without saying why".to_owned());
    }
    Trouble::Words(reasons.join("; "))
}

/// A new key in PEM, and the request that is signed with it.
fn signing_request(domains: &[String]) -> Result<(String, Vec<u8>), String> {
    let make = || {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(domains)?;
        params.distinguished_name = DistinguishedName::new();
        Ok((key.serialize_pem(), params.serialize_request(&key)?.der().to_vec()))
    };
    make().map_err(|error: rcgen::Error| format!("cannot make a signing request: {error}"))
}
