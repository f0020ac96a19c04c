// A certified OpenID provider with a few accounts, for tests of signing in. It tells its port on the first line that it
// prints, and its accounts can be changed: PUT /accounts/<id> with their claims.
import { Provider } from "oidc-provider";
import { createServer } from "node:http";

const accounts = new Map(Object.entries(JSON.parse(process.env.ACCOUNTS ?? "{}")));
const redirect = process.env.REDIRECT_URI;

const configuration = {
  clients: [
    {
      client_id: "box",
      client_secret: "the secret of the box/with +signs",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
    {
      client_id: "public",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    },
  ],
  claims: {
    openid: ["sub"],
    email: ["email", "email_verified"],
    profile: ["name", "preferred_username"],
    groups: ["groups"],
  },
  scopes: ["openid", "profile", "email", "groups"],
  conformIdTokenClaims: false, // claims of the scopes are in the token, as with Entra ID
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false } },
  cookies: { keys: ["one key for the tests"] },
  findAccount: (_, id) =>
    accounts.has(id) ? { accountId: id, claims: () => ({ sub: id, ...accounts.get(id) }) } : undefined,
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope("openid profile email groups");
    await grant.save();
    return grant;
  },
  ttl: { AccessToken: 600, AuthorizationCode: 60, IdToken: 600, Interaction: 600, Session: 600, Grant: 600 },
};

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const port = server.address().port;
  const provider = new Provider(`http://127.0.0.1:${port}`, configuration);
  const answer = provider.callback();
  server.on("request", async (request, response) => {
    const url = new URL(request.url, `http://127.0.0.1:${port}`);
    if (request.method === "PUT" && url.pathname.startsWith("/accounts/")) {
      let body = "";
      for await (const part of request) body += part;
      accounts.set(decodeURIComponent(url.pathname.slice("/accounts/".length)), JSON.parse(body));
      response.end();
      return;
    }
    if (url.pathname.startsWith("/interaction/")) {
      // Who signs in is named by the browser, in a cookie: there is nobody to type a password.
      const login = /(?:^|; )test_account=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
      const result = login
        ? { login: { accountId: decodeURIComponent(login) } }
        : { error: "access_denied", error_description: "nobody is there" };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
      return;
    }
    answer(request, response);
  });
  console.log(port);
});
