package postgrestest

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestServerStopsAndComesBackWithWhatItHad(t *testing.T) {
	t.Parallel()
	s := Start(t, "log_statement=all")
	s.Database(t, `odd "name"`)
	s.Exec(t, `odd "name"`, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
	port := s.Port()
	s.Stop()
	if c, err := pgx.Connect(t.Context(), s.DSN(Superuser)); err == nil {
		_ = c.Close(context.Background())
		t.Fatal("a stopped server answers")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	var n int
	c := s.Connect(t, s.DSN(`odd "name"`))
	if err := c.QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 1 || s.Port() != port {
		t.Errorf("after a restart the table says %d (%v) on port %d, want 1 on %d", n, err, s.Port(), port)
	}
	_ = c.Close(t.Context())
	if log, err := os.ReadFile(s.LogFile()); err != nil || !strings.Contains(string(log), "CREATE TABLE kept") {
		t.Errorf("the log does not say what was asked (%v)", err)
	}
}
