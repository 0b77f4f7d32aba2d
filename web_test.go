package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/wire"
)

// startWeb starts a server with a web listener, and returns where that is.
func startWeb(t *testing.T, change ...func(*config)) (ts *testServer, at string) {
	t.Helper()
	ts = startServer(t, append(change, func(c *config) { c.Web.Listen = "127.0.0.1:0" })...)
	return ts, "http://" + ts.doorway.web.listener.Addr().String()
}

// fetch asks for a page over a connection of its own.
func fetch(t *testing.T, method, url string, header ...string) (code int, body string, headers http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: wire.Patience}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

// TestWebPages: what there is on the web listener, and what not.
func TestWebPages(t *testing.T) {
	t.Parallel()
	ts, at := startWeb(t, func(c *config) { c.Server.Name = `<b>"Annex"` })
	for _, test := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/", 200, "telnet " + strings.Replace(ts.Addr, ":", " ", 1) + "\n"},
		{"GET", "/", 200, "<h1>&lt;b&gt;&#34;Annex&#34;</h1>"},
		{"GET", "/healthz", 200, "ok\n"},
		{"GET", "/metrics", 200, "\nhomeroom_users_online 0\n"},
		{"GET", "/chat.toml", 404, ""}, {"GET", "/healthz/", 404, ""}, {"GET", "/../data/homeroom.key", 404, ""},
		{"POST", "/", 405, ""}, {"POST", "/healthz", 405, ""}, {"DELETE", "/metrics", 405, ""}, {"HEAD", "/", 200, ""},
	} {
		code, body, headers := fetch(t, test.method, at+test.path)
		if code != test.code || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d, %q, want %d, %q", test.method, test.path, code, body, test.code, test.want)
		}
		if headers.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(headers.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s %s: the headers are %v", test.method, test.path, headers)
		}
	}
	guest := ts.Guest("alice")
	if _, body, _ := fetch(t, "GET", at+"/metrics"); !strings.Contains(body, "\nhomeroom_users_online 1\n") {
		t.Errorf("with somebody on:\n%s", body)
	}
	guest.Ask("#ping", "@ret #ping")
}

// TestWebOff: by default there is no web listener.
func TestWebOff(t *testing.T) {
	t.Parallel()
	if ts := startServer(t); ts.doorway.web != nil {
		t.Error("there is one")
	}
}

// TestConnectCommands: the page names the host that was asked for if it leads to the
// port, and never a malformed host.
func TestConnectCommands(t *testing.T) {
	t.Parallel()
	all := startServer(t, func(c *config) { c.Server.Listen, c.TLS.Listen = ":0", ":0" })
	port, tlsPort := portOf(all.doorway.listener), portOf(all.doorway.tlsListener)
	local := startServer(t)
	for _, test := range []struct {
		srv         *server
		asked, want string
	}{
		{all.server, "pi.local:6580", "telnet pi.local " + port + ", openssl s_client -quiet -connect pi.local:" + tlsPort},
		{all.server, "pi.local", "telnet pi.local " + port + ", openssl s_client -quiet -connect pi.local:" + tlsPort},
		{all.server, "[fe80::1]:6580", "telnet fe80::1 " + port + ", openssl s_client -quiet -connect [fe80::1]:" + tlsPort},
		{all.server, "[fe80::1]", "telnet fe80::1 " + port + ", openssl s_client -quiet -connect [fe80::1]:" + tlsPort},
		{local.server, "pi.local:6580", "telnet 127.0.0.1 " + portOf(local.doorway.listener)},
	} {
		if got := strings.Join(test.srv.connectCommands(test.asked), ", "); got != test.want {
			t.Errorf("%q: %s, want %s", test.asked, got, test.want)
		}
	}
	for _, asked := range []string{"", "; rm -rf /", "$(x)", "a b", strings.Repeat("x", 254)} {
		for _, command := range all.connectCommands(asked) {
			if asked != "" && strings.Contains(command, asked) || !strings.Contains(command, reachable(net.IPv6zero)[0]) {
				t.Errorf("%q: %s", asked, command)
			}
		}
	}
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestMetricsAccess: others than this machine get the metrics only where the
// settings say so; nor does a relay get them for others.
func TestMetricsAccess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		setting, from, header string
		code                  int
	}{
		{"loopback", "127.0.0.1:5", "", 200}, {"loopback", "[::1]:5", "", 200}, {"loopback", "[::ffff:127.0.0.1]:5", "", 200},
		{"loopback", "192.168.1.5:5", "", 403}, {"loopback", "[fe80::1%eth0]:5", "", 403}, {"loopback", "", "", 403},
		{"loopback", "127.0.0.1:5", "X-Forwarded-For", 403}, {"loopback", "127.0.0.1:5", "Forwarded", 403},
		{"loopback", "127.0.0.1:5", "Via", 403},
		{"all", "192.168.1.5:5", "", 200}, {"all", "127.0.0.1:5", "X-Forwarded-For", 200},
	} {
		ts, _ := startWeb(t, func(c *config) { c.Web.Metrics = test.setting })
		in := httptest.NewRequest("GET", "/metrics", nil)
		in.RemoteAddr = test.from
		if test.header != "" {
			in.Header.Set(test.header, "192.0.2.1")
		}
		out := httptest.NewRecorder()
		ts.doorway.web.routes().ServeHTTP(out, in)
		if out.Code != test.code {
			t.Errorf("%+v: %d", test, out.Code)
		}
		ts.stopNow()
	}
}

// TestMetricsText: each line is as Prometheus wants it, with no key twice.
func TestMetricsText(t *testing.T) {
	t.Parallel()
	got := metricsText([]stat{{"version", "0.1\"\\\n"}, {"a_b", "5"}, {"rate", "0.5"}, {"kind", "x"}})
	want := "homeroom_a_b 5\nhomeroom_rate 0.5\nhomeroom_info{version=\"0.1\\\"\\\\\\n\",kind=\"x\"} 1\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	line := regexp.MustCompile(`^([a-z][a-z0-9_]*)(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? -?[0-9.e+]+$`)
	seen := map[string]bool{}
	ts := startServer(t)
	for text := range strings.Lines(metricsText(ts.stats())) {
		m := line.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		if m == nil || seen[m[1]] {
			t.Errorf("%q is wrong, or is there twice", text)
			continue
		}
		seen[m[1]] = true
	}
}

// slowStore is a store whose writer answers when it is let.
type slowStore struct {
	store.Store
	asked atomic.Int32
	let   chan struct{}
}

func (s *slowStore) Heartbeat() { s.asked.Add(1); <-s.let }

// TestHealth: 503 where the database's writer does not answer within five
// seconds, whoever asks; it is asked once at a time.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := &slowStore{let: make(chan struct{})}
		w := &webServer{srv: &server{store: slow}}
		ask := func() int {
			out := httptest.NewRecorder()
			w.routes().ServeHTTP(out, httptest.NewRequestWithContext(t.Context(), "GET", "/healthz", nil))
			return out.Code
		}
		began := time.Now()
		for range 3 {
			if code := ask(); code != http.StatusServiceUnavailable {
				t.Errorf("code %d while the writer hangs", code)
			}
		}
		if took := time.Since(began); took != 3*beatTime || slow.asked.Load() != 1 {
			t.Errorf("after %v; the writer was asked %d times", took, slow.asked.Load())
		}
		close(slow.let)
		synctest.Wait()
		if code := ask(); code != http.StatusOK || slow.asked.Load() != 2 {
			t.Errorf("code %d after it goes on; the writer was asked %d times", code, slow.asked.Load())
		}
	})
}

// TestWebLimits: connections past the limit of an address are closed, the others
// are served, and those that end make room.
func TestWebLimits(t *testing.T) {
	t.Parallel()
	ts, at := startWeb(t)
	address := strings.TrimPrefix(at, "http://")
	var conns []net.Conn
	for range webPerIP {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		if line := request(t, conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.Contains(line, "200") {
			t.Errorf("connection %d: %q", len(conns), line)
		}
	}
	extra, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	if line := request(t, extra, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); line != "" {
		t.Errorf("a connection past the limit: %q", line)
	}
	ts.Guest("alice") // the chat counts apart
	for _, conn := range conns {
		conn.Close()
	}
	for began := time.Now(); ; { // the server notices the ends by and by
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		line := request(t, conn, "GET /healthz HTTP/1.0\r\n\r\n")
		conn.Close()
		if strings.Contains(line, "200 OK") {
			break
		}
		if time.Since(began) > wire.Patience {
			t.Fatalf("after the others have gone: %q", line)
		}
	}
}

// request sends something and returns the first line of the answer; "" where
// there is none.
func request(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(wire.Patience)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text)
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// TestWebHeader: a header that is too long is refused.
func TestWebHeader(t *testing.T) {
	t.Parallel()
	_, at := startWeb(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	long := "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*webHeaderBytes) + "\r\n\r\n"
	if line := request(t, conn, long); line != "HTTP/1.1 431 Request Header Fields Too Large" {
		t.Errorf("got %q", line)
	}
}

// TestWebStops: a stop ends the web listener and the connections on it.
func TestWebStops(t *testing.T) {
	t.Parallel()
	ts, at := startWeb(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if line := request(t, conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.Contains(line, "200") {
		t.Fatal(line)
	}
	ts.stopNow()
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection after the stop: %v", err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(at, "http://")); err == nil {
		conn.Close()
		t.Error("the port is open after the stop")
	}
}
