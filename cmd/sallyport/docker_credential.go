package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/brokers"
)

// dockerPrefix begins the names under which Docker runs its credential helpers.
const dockerPrefix = "docker-credential-"

// asHelper turns the arguments of a binary that Docker runs as docker-credential-NAME into those of our command.
func asHelper(args []string) []string {
	if strings.HasPrefix(filepath.Base(args[0]), dockerPrefix) {
		return append([]string{"docker-credential"}, args[1:]...)
	}
	return args[1:]
}

func newDockerCredential() *cobra.Command {
	var a ask
	var registries []string
	var user string
	c := &cobra.Command{
		Use:   "docker-credential get|store|erase|list",
		Short: "Be Docker's credential helper: a minutes-lived token for each pull and push",
		Example: `sallyport docker-credential get --server https://sts.example --audience shop-images --subject-token-file token --registry ghcr.io
  ln -s "$(command -v sallyport)" /usr/local/bin/docker-credential-sallyport`,
		Long: `Be Docker's credential helper, as docker-credential-sallyport on the PATH, with {"credHelpers": {"ghcr.io": "sallyport"}} in
Docker's config.json. Docker passes no flags: SALLYPORT_SERVER, SALLYPORT_AUDIENCE, SALLYPORT_SUBJECT_TOKEN_FILE and
SALLYPORT_REGISTRY say what is asked for and which registries may have it. store and erase do nothing, and list lists nothing.`,
		Args: exactArgs(1, "what Docker asks for: get, store, erase or list"),
		RunE: func(c *cobra.Command, args []string) error {
			switch args[0] {
			case "list":
				_, err := fmt.Fprintln(c.OutOrStdout(), "{}")
				return err
			case "store", "erase":
				return nil
			case "get":
			default:
				return usagef("%s is none of get, store, erase and list", visible(args[0]))
			}
			if a.tokenFile == "-" {
				return usagef("Docker has standard input: name the identity token with SALLYPORT_SUBJECT_TOKEN_FILE")
			}
			raw, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
			if err != nil {
				return err
			}
			address := strings.TrimSpace(string(raw))
			if !contains(registries, registry(address)) {
				fmt.Fprintln(c.OutOrStdout(), "credentials not found in native keychain") // Docker's own words: it goes on without
				return errors.New("no registry of --registry")
			}
			out, err := a.obtain(c.Context(), c.InOrStdin())
			if err != nil {
				return err
			}
			if out.TokenType == brokers.NotApplicable {
				return errors.New("the target gave no token that Docker can send; it is for a target whose credential is one string")
			}
			if user == "" {
				user = dockerUser(strings.TrimPrefix(string(out.IssuedTokenType), brokers.TypePrefix))
			}
			return json.NewEncoder(c.OutOrStdout()).Encode(struct{ ServerURL, Username, Secret string }{address, user, out.AccessToken})
		},
	}
	a.flags(c)
	c.Flags().StringSliceVar(&registries, "registry", words(os.Getenv("SALLYPORT_REGISTRY")), "host of a registry that may have the credential; may repeat (or SALLYPORT_REGISTRY, blanks between)")
	c.Flags().StringVar(&user, "username", os.Getenv("SALLYPORT_REGISTRY_USERNAME"), "user name that goes with it (or SALLYPORT_REGISTRY_USERNAME; default: what the kind of credential asks for)")
	return c
}

// registry is the host of what Docker calls a server: a host, or a URL.
func registry(address string) string {
	if u, err := url.Parse(address); err == nil && u.Scheme == "https" {
		return u.Host
	}
	if strings.Contains(address, "://") {
		return ""
	}
	host, _, _ := strings.Cut(address, "/")
	return host
}

// dockerUser is what registries want to be told beside a token of a kind.
func dockerUser(kind string) string {
	switch kind {
	case "github-installation-token":
		return "x-access-token"
	case "gcp-access-token":
		return "oauth2accesstoken"
	default:
		return "<token>" // an identity token, for the registry's own token server
	}
}
