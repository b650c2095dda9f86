package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:     "demo",
		Short:   "The whole story in a temporary directory: nothing installed, nothing left behind",
		Example: "sallyport demo",
		Long: `Play the whole story: a stand-in for a Kubernetes cluster signs a workload's identity token, a real
sallyport process exchanges it under policy, and the minted token is introspected, exchanged onward,
revoked and refused, all on record. Everything lives in a temporary directory on loopback and is
gone at the end. Each step shows the command that you would type.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			dir, err := os.MkdirTemp("", "sallyport-demo-")
			if err != nil {
				return err
			}
			err = playDemo(ctx, c.OutOrStdout(), dir)
			if e := os.RemoveAll(dir); err == nil {
				err = e
			}
			return err
		},
	}
}

// story tells and does: every step prints the command a person would type, does the same, and shows the answer.
type story struct {
	out   io.Writer
	stage *stage
	step  int
	err   error // the first thing that did not go as told
}

func playDemo(ctx context.Context, out io.Writer, dir string) error {
	stage, err := newStage(ctx, dir)
	if err != nil {
		return err
	}
	defer stage.stop()
	s := &story{out: out, stage: stage}
	s.play(ctx)
	if s.err == nil {
		s.say("\n%s is gone, and nothing is left behind. Your own: sallyport init DIR", filepath.Base(dir))
	}
	return s.err
}

func (s *story) play(ctx context.Context) {
	st := s.stage
	s.title("A Sallyport is running, and trusts one cluster")
	s.shell("sallyport serve %s", filepath.Base(st.dir))
	s.file("trust/prod.yaml")
	s.file("policy/shop.yaml")

	s.title("Kubernetes gives the workload checkout an identity token. It says who, and grants nothing")
	checkout := s.platformToken("checkout")

	s.title("checkout exchanges it for a token that opens one door, for minutes")
	gatewayToken := s.exchange(ctx, "CHECKOUT_TOKEN", checkout, "gateway", "", 200)

	s.title("gateway serves the call by exchanging that token onward. The child remembers its family")
	ordersToken := s.exchange(ctx, "GATEWAY_TOKEN", gatewayToken, "orders", "read", 200)

	s.title("What no rule allows is refused: one answer for an unknown target and for a forbidden one")
	s.exchange(ctx, "CHECKOUT_TOKEN", checkout, "orders", "", 400)
	decision := st.lastDecision
	s.exchange(ctx, "CHECKOUT_TOKEN", checkout, "payroll", "", 400)
	s.say("The caller learns nothing. The operator asks the record:")
	s.command(ctx, "explain", "--config", st.dir, decision)

	s.title("gateway, a resource server of both, asks whether the tokens live")
	bearer := s.exchange(ctx, "RESOURCE_SERVER_TOKEN", st.token("gateway"), "introspection", "", 200)
	s.introspect(ctx, bearer, "ORDERS_TOKEN", ordersToken, true)

	s.title("checkout's token has leaked: whoever holds it can kill it")
	s.curl(ctx, "/revoke", "", []string{"token=$GATEWAY_TOKEN"}, url.Values{"token": {gatewayToken}}, 200)

	s.title("It is dead, and so is everything that was exchanged from it")
	s.introspect(ctx, bearer, "GATEWAY_TOKEN", gatewayToken, false)
	s.introspect(ctx, bearer, "ORDERS_TOKEN", ordersToken, false)
	s.exchange(ctx, "GATEWAY_TOKEN", gatewayToken, "orders", "read", 400)

	s.title("All of it is on record, and when the server has ended the record proves itself")
	s.command(ctx, "audit", "show", "--config", st.dir)
	if err := st.stop(); err != nil {
		s.keep(fmt.Errorf("the server did not end in order: %w", err))
	}
	s.command(ctx, "audit", "verify", "--config", st.dir)
}

// say ends with the first thing that did not go as told: nothing true can follow it.
func (s *story) say(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

func (s *story) title(text string) {
	s.step++
	s.say("\n%s", paint(s.out, bold, fmt.Sprintf("%d. %s", s.step, text)))
}

func (s *story) shell(format string, args ...any) {
	s.say("%s", paint(s.out, green, "$ "+fmt.Sprintf(format, args...)))
}

func (s *story) indent(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		s.say("  %s", strings.TrimRight(line, "\n"))
	}
}

// file shows a configuration file as it is.
func (s *story) file(name string) {
	b, err := os.ReadFile(filepath.Join(s.stage.dir, name))
	s.keep(err)
	s.shell("cat %s", name)
	s.indent(string(b))
}

func (s *story) platformToken(account string) string {
	s.shell("cat /var/run/secrets/tokens/sallyport   # its claims:")
	token := s.stage.token(account)
	s.indent(claimsOf(token))
	return token
}

func (s *story) exchange(ctx context.Context, name, token, target, scope string, want int) string {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {token},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {target},
	}
	shown := []string{
		"grant_type=" + form.Get("grant_type"), "subject_token=$" + name,
		"subject_token_type=" + form.Get("subject_token_type"), "audience=" + target,
	}
	if scope != "" {
		form.Set("scope", scope)
		shown = append(shown, "scope="+scope)
	}
	answer := s.curl(ctx, "/token", "", shown, form, want)
	minted, _ := answer["access_token"].(string)
	if minted != "" {
		s.say("  the token's claims:")
		s.indent(claimsOf(minted))
	}
	return minted
}

func (s *story) introspect(ctx context.Context, bearer, name, token string, alive bool) {
	answer := s.curl(ctx, "/introspect", bearer, []string{"token=$" + name}, url.Values{"token": {token}}, 200)
	if active, _ := answer["active"].(bool); active != alive {
		s.keep(fmt.Errorf("introspection of %s says active=%v, want %v", name, active, alive))
	}
}

// curl shows the command, does what it says and shows the answer, with tokens cut short.
func (s *story) curl(ctx context.Context, path, bearer string, shown []string, form url.Values, want int) map[string]any {
	line := "curl -s " + s.stage.issuer + path
	if bearer != "" {
		line += ` -H "Authorization: Bearer $RESOURCE_SERVER_TOKEN"`
	}
	for _, p := range shown {
		line += " \\\n    -d " + p
	}
	s.shell("%s", line)
	if s.err != nil {
		return nil
	}
	status, answer, err := s.stage.post(ctx, path, bearer, form)
	s.keep(err)
	if err == nil && status != want {
		s.keep(fmt.Errorf("POST %s answered %d, want %d", path, status, want))
	}
	colour := green
	if status >= 400 {
		colour = red
	}
	s.say("  %s", paint(s.out, colour, fmt.Sprintf("HTTP %d", status)))
	if len(answer) > 0 {
		s.indent(shortened(answer))
	}
	return answer
}

// command runs one of our own commands against the running server's directory.
func (s *story) command(ctx context.Context, args ...string) {
	shown := strings.ReplaceAll(strings.Join(args, " "), s.stage.dir, filepath.Base(s.stage.dir))
	s.shell("sallyport %s", shown)
	var out strings.Builder
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	s.keep(root.ExecuteContext(ctx))
	s.indent(out.String())
}

func (s *story) keep(err error) {
	if s.err == nil {
		s.err = err
	}
}
