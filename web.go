package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed web/index.html
var indexPage string

// What a browser, or a program that watches the server, may take of it. Its
// connections are counted apart, so that neither they nor the chat's can use up
// what the others need.
const (
	webConnections = 256
	webPerIP       = 32
	webHeaderBytes = 8 << 10
	webReadTime    = 10 * time.Second
	webWriteTime   = 20 * time.Second
	webIdleTime    = time.Minute
	webStopTime    = time.Second
	beatTime       = 5 * time.Second // within which the store must answer
)

// webServer is the web listener. Its methods do nothing where there is none.
type webServer struct {
	srv      *server
	listener net.Listener
	http     *http.Server

	mu   sync.Mutex
	beat chan struct{} // closed when the store has answered; nil: it is not being asked
}

// listenWeb opens the web listener, if the settings want one.
func (srv *server) listenWeb(ctx context.Context) error {
	if srv.cfg.Web.Listen == "" {
		return nil
	}
	l, err := listenTCP(ctx, srv.cfg.Web.Listen)
	if err != nil && srv.cfg.Web.Listen == defaultConfig().Web.Listen { // nobody has asked for just this port
		slog.Warn("there is no web page: its port cannot be had", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	w := &webServer{srv: srv, listener: l}
	w.http = &http.Server{
		Handler: w.routes(), MaxHeaderBytes: webHeaderBytes, ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
		ReadTimeout: webReadTime, WriteTimeout: webWriteTime, IdleTimeout: webIdleTime,
	}
	srv.doorway.mu.Lock()
	defer srv.doorway.mu.Unlock()
	srv.doorway.web = w
	return nil
}

// sayWeb logs where the page is.
func (srv *server) sayWeb() {
	if srv.doorway.web == nil {
		return
	}
	slog.Info("web page: " + waysIn(srv.doorway.web.listener.Addr().String(), pageAt)[0])
}

// routes is what there is to see.
func (w *webServer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.serveIndex)
	mux.HandleFunc("GET /healthz", w.serveHealth)
	mux.HandleFunc("GET /metrics", w.serveMetrics)
	return http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		out.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		out.Header().Set("X-Content-Type-Options", "nosniff")
		out.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(out, in)
	})
}

// serve serves until close.
func (w *webServer) serve() {
	limited := &limitedListener{Listener: &patientListener{Listener: w.listener}, admission: newAdmissionOf(webConnections, webPerIP)}
	if err := w.http.Serve(limited); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		slog.Error("the web listener serves no more until the server is restarted", "error", err)
	}
}

// close lets answers that are being written be finished, for a moment.
func (w *webServer) close() {
	if w == nil {
		return
	}
	_ = w.listener.Close() // it may never have served
	ctx, stop := context.WithTimeout(context.Background(), webStopTime)
	defer stop()
	if w.http.Shutdown(ctx) != nil {
		_ = w.http.Close()
	}
}

// limitedListener closes connections past its limits unheard.
type limitedListener struct {
	net.Listener
	admission *admission
}

// Accept returns the next connection that is not one too many.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, mine := source(addressOf(conn.RemoteAddr()), addressOf(conn.LocalAddr())), new(ticket)
		if l.admission.admit(from, mine) == "" {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.admission.leave(mine) })}, nil
		}
		conn.Close()
	}
}

// countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection, and counts it out.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// serveIndex says how to connect.
func (w *webServer) serveIndex(out http.ResponseWriter, in *http.Request) {
	commands := strings.Join(w.srv.connectCommands(in.Host), "\n")
	page := strings.NewReplacer( // a library for templates would add a tenth to the program
		"{name}", html.EscapeString(w.srv.settings().Server.Name), "{commands}", html.EscapeString(commands))
	out.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = page.WriteString(out, indexPage) // the browser may be gone
}

// hostForm is what a browser's name for this machine looks like.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9.:-]{1,253}$`)

// connectCommands is what to type to connect, for a browser that asked for that host.
func (srv *server) connectCommands(asked string) []string {
	host, _, err := net.SplitHostPort(asked)
	if err != nil {
		host = strings.Trim(asked, "[]")
	}
	commands := []string{}
	for _, at := range []struct {
		listener    net.Listener
		form, joint string
	}{{srv.doorway.listener, "telnet ", " "}, {srv.doorway.tlsListener, "openssl s_client -quiet -connect ", ":"}} {
		if at.listener == nil {
			continue
		}
		tcp, ok := at.listener.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		to := host
		if !tcp.IP.IsUnspecified() || !hostForm.MatchString(host) {
			to = reachable(tcp.IP)[0]
		}
		if at.joint == ":" && strings.Contains(to, ":") {
			to = "[" + to + "]"
		}
		commands = append(commands, at.form+to+at.joint+strconv.Itoa(tcp.Port))
	}
	return commands
}

// serveHealth says whether the database's writer answers.
func (w *webServer) serveHealth(out http.ResponseWriter, in *http.Request) {
	timer := time.NewTimer(beatTime)
	defer timer.Stop()
	select {
	case <-w.askStore():
		fmt.Fprintln(out, "ok")
	case <-timer.C:
		http.Error(out, "the database does not answer", http.StatusServiceUnavailable)
	case <-in.Context().Done():
	}
}

// askStore has the store's writer answer, once for all who ask meanwhile: one that
// hangs does not gather goroutines.
func (w *webServer) askStore() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.beat == nil {
		beat := make(chan struct{})
		w.beat = beat
		go func() {
			w.srv.store.Heartbeat()
			w.mu.Lock()
			w.beat = nil
			w.mu.Unlock()
			close(beat)
		}()
	}
	return w.beat
}

// serveMetrics is the statistics for Prometheus.
func (w *webServer) serveMetrics(out http.ResponseWriter, in *http.Request) {
	if w.srv.settings().Web.Metrics != "all" && !fromThisMachine(in) {
		http.Error(out, `only for this machine; web.metrics = "all" in the settings changes that`, http.StatusForbidden)
		return
	}
	out.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(out, metricsText(w.srv.stats())) // the other end may be gone
}

// fromThisMachine reports whether a program on this machine asks, and not on behalf
// of another one.
func fromThisMachine(in *http.Request) bool {
	from, err := netip.ParseAddrPort(in.RemoteAddr)
	relayed := in.Header.Get("Forwarded") + in.Header.Get("X-Forwarded-For") + in.Header.Get("Via")
	return err == nil && from.Addr().Unmap().IsLoopback() && relayed == ""
}

// metricsText shows statistics in Prometheus' text format. A text becomes a
// label of homeroom_info.
func metricsText(stats []stat) string {
	var text, info strings.Builder
	for _, s := range stats {
		if _, err := strconv.ParseFloat(s.value, 64); err == nil {
			fmt.Fprintf(&text, "homeroom_%s %s\n", s.key, s.value)
			continue
		}
		if info.Len() > 0 {
			info.WriteByte(',')
		}
		value := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s.value)
		fmt.Fprintf(&info, `%s="%s"`, s.key, value)
	}
	if info.Len() > 0 {
		fmt.Fprintf(&text, "homeroom_info{%s} 1\n", info.String())
	}
	return text.String()
}
