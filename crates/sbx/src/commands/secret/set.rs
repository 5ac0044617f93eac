//! `sbx secret set`.

use super::source::SourceArgs;
use super::{Context, person, services, stored, value};
use crate::exit::Exit;
use crate::prompt;
use sbx_credentials::services::Service;
use sbx_wire::api::{
    AskConsent, AwaitConsent, AwsEndpoint, Consent, HandIn, SetRegistry, SetSecret, StoredSecret,
};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;

/// Store a secret; the value is read from standard input or asked for
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("fetched").args(["command", "reference"]).conflicts_with_all(["token", "registry"])))]
pub(crate) struct SetArgs {
    /// Service, e.g. anthropic (ANTHROPIC_API_KEY works too)
    #[arg(conflicts_with = "registry")]
    service: Option<String>,
    /// The value; visible to others in the process list, prefer standard input
    #[arg(short, long, conflicts_with = "registry")]
    token: Option<String>,
    /// Sign in with the host's browser instead of storing a key (openai)
    #[arg(long, conflicts_with_all = ["token", "fetched", "registry", "sandbox"])]
    oauth: bool,
    /// Only for this sandbox [default: all sandboxes]
    #[arg(long)]
    sandbox: Option<String>,
    /// Replace an existing value
    #[arg(short, long)]
    force: bool,
    /// For all sandboxes (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    aws: AwsArgs,
    #[command(flatten)]
    short_lived: ShortLivedArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Where a key of AWS is used.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Keys of AWS")]
struct AwsArgs {
    /// Also sign requests to this host, which has a name of its own: a store with the interface of S3, an endpoint inside of
    /// a VPC (minio.example.com:9000=s3/us-east-1, *.store.example.com=s3/eu-west-1); repeatable
    #[arg(long = "endpoint", value_name = "HOST=SERVICE/REGION", conflicts_with_all = ["registry", "oauth"])]
    endpoints: Vec<AwsEndpoint>,
}

/// Keys of AWS that enter sandboxes.
#[derive(Debug, Clone, clap::Args)]
#[command(
    next_help_heading = "Keys of AWS that are inside for 15 minutes (weaker: programs inside can read and send them)"
)]
struct ShortLivedArgs {
    /// Also hand in keys that STS gives for this one, for programs whose requests cannot be signed outside
    #[arg(long, conflicts_with_all = ["registry", "oauth"])]
    short_lived: bool,
    /// Role that they are of [default: the key's own user]
    #[arg(long, value_name = "ARN", requires = "short_lived")]
    role: Option<String>,
    /// Region whose STS is asked [default: us-east-1]
    #[arg(long, value_name = "REGION", requires = "short_lived")]
    sts_region: Option<String>,
}

impl ShortLivedArgs {
    fn hand_in(self) -> Option<HandIn> {
        let (role, region) = (self.role, self.sts_region);
        self.short_lived.then_some(HandIn { role, region })
    }
}

/// The service, and of what its value is made up if that is more than one thing.
fn described(service: &str) -> String {
    let parts = Service::find(service).map_or(&[][..], |service| service.parts);
    let mut text = service.to_owned();
    for (index, part) in parts.iter().enumerate().filter(|_| parts.len() > 1) {
        let name = part.import.first().unwrap_or(&"");
        text.push_str(&match (index, part.optional) {
            (0, _) => format!(", as {name}"),
            (_, false) => format!(":{name}"),
            (_, true) => format!("[:{name}]"),
        });
    }
    text
}

/// The login of a registry.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logins of registries")]
struct RegistryArgs {
    /// Store the login of this registry instead; without --sandbox or --all-sandboxes for the host alone
    #[arg(long, value_name = "HOST", requires = "username")]
    registry: Option<String>,
    /// User
    #[arg(long, requires = "registry")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "registry")]
    password_stdin: bool,
    /// Where the registry has its clients sign in, if that is another host
    #[arg(long, value_name = "URL", requires = "registry")]
    registry_auth_endpoint: Option<String>,
    /// Sandboxes may use it
    #[arg(long, requires = "registry", conflicts_with = "sandbox")]
    all_sandboxes: bool,
}

pub(super) async fn run(context: &mut Context, args: SetArgs) -> Result<Exit, Report> {
    if let Some(host) = args.registry.registry.clone() {
        return registry(context, host, args).await;
    }
    let service = service(context, args.service)?;
    if args.oauth {
        return sign_in(context, service).await;
    }
    let command = format!("sbx secret set {service}");
    let fetched = args.source.fetched();
    let value = match &fetched {
        Some(_) => None,
        None => {
            let what = described(&service);
            Some(value::obtain(context, args.token, &what, &command).await?)
        }
    };
    let body = SetSecret {
        service,
        value,
        fetched,
        sandbox: args.sandbox,
        short_lived: args.short_lived.hand_in(),
        endpoints: args.aws.endpoints,
        force: args.force,
        person: person(context),
    };
    let answer: StoredSecret = context.client.post("/v1/secrets", &body).await?;
    stored(&mut context.printer, &answer);
    Ok(Exit::Success)
}

/// Asks somebody to agree, in the browser that the daemon opens or another one.
async fn sign_in(context: &mut Context, service: String) -> Result<Exit, Report> {
    if !prompt::possible(context.no_input) {
        return Err(Report::user(
            "no-terminal",
            "somebody has to agree in a browser, and nobody is at a terminal",
            format!(
                "run sbx secret set {service} --oauth in a terminal, or store a key: sbx secret set {service}"
            ),
        ));
    }
    let ask = AskConsent { service };
    let consent: Consent = context.client.post("/v1/secrets/consent", &ask).await?;
    if let Some(why) = &consent.not_opened {
        context
            .printer
            .notice(&format!("No browser was opened: {why}"));
    }
    let minutes = consent.limit_s / 60;
    let request = format!("Agree within {minutes} minutes at");
    context.printer.notice(&request);
    context.printer.notice(&consent.page);
    let wait = AwaitConsent { id: consent.id };
    let answer: StoredSecret = context
        .client
        .post("/v1/secrets/consent/wait", &wait)
        .await?;
    stored(&mut context.printer, &answer);
    Ok(Exit::Success)
}

async fn registry(context: &mut Context, host: String, args: SetArgs) -> Result<Exit, Report> {
    let command = format!("sbx secret set --registry {host} --username USER --password-stdin");
    let password = if args.registry.password_stdin {
        let text = value::from_stdin()?;
        SecretText::new(text.trim_end_matches(['\r', '\n']).to_owned())
    } else {
        value::obtain(context, None, &host, &command).await?
    };
    let body = SetRegistry {
        registry: host,
        username: args.registry.username.unwrap_or_default(),
        password,
        auth_endpoint: args.registry.registry_auth_endpoint,
        all_sandboxes: args.registry.all_sandboxes,
        sandbox: args.sandbox,
        force: args.force,
        person: person(context),
    };
    let answer: StoredSecret = context.client.post("/v1/secrets/registry", &body).await?;
    stored(&mut context.printer, &answer);
    Ok(Exit::Success)
}

/// The service that was named, or one that is chosen.
fn service(context: &Context, named: Option<String>) -> Result<String, Report> {
    if let Some(named) = named {
        return Ok(named);
    }
    let services = services();
    let chosen = prompt::possible(context.no_input)
        .then(|| prompt::choose("Secret for which service?", &services, 0))
        .flatten();
    chosen.map(str::to_owned).ok_or_else(|| {
        Report::user(
            "no-service",
            "which service the secret is for has to be said",
            format!("sbx secret set {}", services.join("|")),
        )
    })
}
