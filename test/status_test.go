package test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"homeroom/test/wire"
)

// TestStatus: whether a server runs, and the fingerprint that its log tells and
// its clients see.
func TestStatus(t *testing.T) {
	t.Parallel()
	settings, data := writeSettings(t, programSettings+"[tls]\nlisten = \"127.0.0.1:0\"\n"), t.TempDir()
	status := func(code int, want ...string) {
		t.Helper()
		got, stdout, stderr := run(t, "status", "-config", settings, "-data", data)
		if got != code || stderr != "" {
			t.Errorf("exit code %d, want %d; stderr %q", got, code, stderr)
		}
		for _, w := range append(want, "data folder  "+data+"\n") {
			if !strings.Contains(stdout, w) {
				t.Errorf("want %q in\n%s", w, stdout)
			}
		}
	}
	status(exitFailed, "server       does not run\n", "certificate  none yet")
	if files, err := os.ReadDir(data); err != nil || len(files) != 0 {
		t.Errorf("asking for the status has made files: %v, %v", files, err)
	}
	p := startProgram(t, buildProgram(t), "-config", settings, "-data", data)
	p.loggedLine("listening with TLS on ")
	lines := strings.Split(p.logged(), "\n")
	m := regexp.MustCompile(`msg="listening with TLS on (\S+)" fingerprint=([0-9A-F:]{95})$`).FindStringSubmatch(lines[1])
	if !strings.Contains(lines[0], "; to connect: telnet 127.0.0.1 ") || m == nil {
		t.Fatalf("the log begins with %q, %q", lines[0], lines[1])
	}
	conn, err := tls.Dial("tcp", m[1], wire.TLS(t, data))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shown := conn.ConnectionState().PeerCertificates[0]
	if got := strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(shown.Raw)), " ", ":"); got != m[2] {
		t.Errorf("the log tells %s, the server shows %s", m[2], got)
	}
	public := sha256.Sum256(shown.RawSubjectPublicKeyInfo)
	pin := "sha256//" + base64.StdEncoding.EncodeToString(public[:])
	status(exitDone, "server       runs, process "+strconv.Itoa(p.cmd.Process.Pid)+"\n", "TLS          127.0.0.1:0\n",
		"fingerprint  SHA-256 "+m[2]+"\n", "public key   "+pin+"\n", "names        ", " localhost 127.0.0.1 ::1")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	status(exitFailed, "server       does not run\n", "fingerprint  SHA-256 "+m[2])
}

// TestStatusWrong: what cannot be told is told as an error.
func TestStatusWrong(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none.pem")
	files := writeSettings(t, "[web]\nlisten = \"\"\n[tls]\nlisten = \"127.0.0.1:0\"\ncert = \""+missing+"\"\nkey = \""+missing+"\"\n")
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-config " + missing, exitFailed, "cannot read the settings"},
		{"-config " + writeSettings(t, "[tls]\nport = 1"), exitFailed, "there is no setting tls.port"},
		{"-config " + files + " -data " + t.TempDir(), exitFailed, "cannot use the certificate " + missing},
		{"now", exitUsage, "too many arguments: now"},
	} {
		code, _, stderr := run(t, append([]string{"status"}, strings.Fields(test.args)...)...)
		if code != test.code || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, %q", test.args, code, stderr)
		}
	}
	if why := refusal(t, buildProgram(t), "-config", files, "-data", t.TempDir(), "-listen", "127.0.0.1:0"); !strings.Contains(why, "cannot use the certificate "+missing) {
		t.Errorf("a server without its certificate says %q", why)
	}
	off := writeSettings(t, "")
	if code, stdout, _ := run(t, "status", "-config", off, "-data", t.TempDir()); code != exitFailed || !strings.Contains(stdout, "TLS          off\n") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}
