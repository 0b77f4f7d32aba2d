package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What is kept of all that others may send.
const (
	maxFound      = 256 // servers, hosts
	maxFoundAddrs = 16  // of a host
	maxFoundText  = 40  // characters of a server's version
)

// foundServer is what others have said of a server.
type foundServer struct {
	instance dnsmessage.Name
	host     dnsmessage.Name // of length 0: not known yet
	port     uint16
	text     []string
	told     bool // its text is known
}

// foundHost is what others have said of a machine.
type foundHost struct {
	name  dnsmessage.Name
	addrs []netip.Addr
}

// finder gathers what others say.
type finder struct {
	servers []*foundServer
	hosts   []*foundHost
}

// runFind lists the servers on the network; exit code 1: there are none.
func runFind(env environment, flags *flag.FlagSet, args []string) int {
	wait := flags.Duration("time", 3*time.Second, "how long to `WAIT` for answers")
	if code, done := parse(flags, args, 0); done {
		return code
	}
	if *wait <= 0 {
		fmt.Fprintf(env.stderr, "homeroom find: -time must be more than 0, like 3s\n")
		return exitUsage
	}
	f, err := find(env.ctx, *wait)
	switch {
	case err != nil:
		fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
	case !f.any():
		fmt.Fprintf(env.stderr, "homeroom: no server has answered on this network within %v. A server answers where its settings have find.announce = true "+
			"and it listens to the network; guest Wi-Fi and firewalls (UDP port %d) may keep its answer away. If you know its address, use that.\n", *wait, mdnsPort)
	default:
		if err := f.write(env.stdout); err != nil {
			fmt.Fprintf(env.stderr, "homeroom: %v\n", oneLine(err))
			return exitFailed
		}
		return exitDone
	}
	return exitFailed
}

// find asks everybody on the network for servers, and listens for so long.
func find(ctx context.Context, wait time.Duration) (*finder, error) {
	sockets, err := openMDNS(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking the network: %w", err)
	}
	defer sockets.close()
	links := sockets.links(func(netip.Addr) bool { return true })
	if len(links) == 0 {
		return nil, errors.New("this machine is on no network: no interface is up that has an address")
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	f := &finder{}
	for pause := time.Second; ; pause *= 2 {
		packet, err := f.question()
		if err != nil {
			return nil, fmt.Errorf("asking the network: %w", err)
		}
		for _, l := range links {
			sockets.send(l, netip.AddrPort{}, packet)
		}
		if !f.listen(ctx, sockets.packets, links, pause) {
			return f, nil
		}
	}
}

// listen takes answers for a time, and tells whether to ask again.
func (f *finder) listen(ctx context.Context, packets <-chan mdnsPacket, links []mdnsLink, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case p := <-packets:
			i := slices.IndexFunc(links, func(l mdnsLink) bool { return l.index == p.index && l.v6 == p.v6 })
			if i < 0 || p.from.Port() != mdnsPort || !links[i].isNear(p.from.Addr()) {
				continue
			}
			if m, err := parseMDNS(p.data); err == nil && m.response {
				f.hear(m.records(), links[i].name)
			}
		}
	}
}

// question asks for servers, and for what is not known yet of those that were
// found.
func (f *finder) question() ([]byte, error) {
	const most = 5 // questions, so that a packet holds them however long the names are
	m := dnsmessage.Message{Questions: []dnsmessage.Question{mdnsQuestion(dnsName(chatService+".local."), dnsmessage.TypePTR)}}
	for _, s := range f.servers {
		if len(m.Questions) > most {
			break
		}
		switch {
		case s.host.Length == 0 || !s.told:
			m.Questions = append(m.Questions, mdnsQuestion(s.instance, dnsmessage.TypeALL))
		case len(f.addresses(s.host)) == 0:
			m.Questions = append(m.Questions, mdnsQuestion(s.host, dnsmessage.TypeA), mdnsQuestion(s.host, dnsmessage.TypeAAAA))
		}
	}
	return m.Pack()
}

// hear keeps what an answer from an interface says.
func (f *finder) hear(said []dnsmessage.Resource, iface string) {
	for _, r := range said { // first, so that the others have somewhere to go
		if ptr, ok := r.Body.(*dnsmessage.PTRResource); ok && inNet(r.Header.Class) && sameName(r.Header.Name, dnsName(chatService+".local.")) {
			f.heardServer(ptr.PTR, r.Header.TTL)
		}
	}
	for _, r := range said {
		if !inNet(r.Header.Class) {
			continue
		}
		switch body := r.Body.(type) {
		case *dnsmessage.SRVResource:
			if s := f.server(r.Header.Name); s != nil {
				s.host, s.port = body.Target, body.Port
			}
		case *dnsmessage.TXTResource:
			if s := f.server(r.Header.Name); s != nil {
				s.text, s.told = body.TXT, true
			}
		case *dnsmessage.AResource, *dnsmessage.AAAAResource:
			ip, _ := addressIn(body)
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(iface)
			}
			f.heardAddress(r.Header.Name, ip, r.Header.TTL)
		}
	}
}

// heardServer keeps a server's name, or forgets it where the server has gone.
func (f *finder) heardServer(instance dnsmessage.Name, ttl uint32) {
	if ttl == 0 {
		f.servers = slices.DeleteFunc(f.servers, func(s *foundServer) bool { return sameName(s.instance, instance) })
	} else if f.server(instance) == nil && len(f.servers) < maxFound {
		f.servers = append(f.servers, &foundServer{instance: instance})
	}
}

// heardAddress keeps an address of a host, or forgets it.
func (f *finder) heardAddress(name dnsmessage.Name, ip netip.Addr, ttl uint32) {
	i := slices.IndexFunc(f.hosts, func(h *foundHost) bool { return sameName(h.name, name) })
	if i < 0 {
		if ttl == 0 || len(f.hosts) == maxFound {
			return
		}
		i = len(f.hosts)
		f.hosts = append(f.hosts, &foundHost{name: name})
	}
	h := f.hosts[i]
	if ttl == 0 {
		h.addrs = slices.DeleteFunc(h.addrs, func(a netip.Addr) bool { return a == ip })
	} else if !slices.Contains(h.addrs, ip) && len(h.addrs) < maxFoundAddrs {
		h.addrs = append(h.addrs, ip)
	}
}

// server is what is known of a server; nil: it is none that was found.
func (f *finder) server(instance dnsmessage.Name) *foundServer {
	for _, s := range f.servers {
		if sameName(s.instance, instance) {
			return s
		}
	}
	return nil
}

// addresses is what is known of a host's addresses.
func (f *finder) addresses(host dnsmessage.Name) []netip.Addr {
	for _, h := range f.hosts {
		if sameName(h.name, host) {
			return h.addrs
		}
	}
	return nil
}

// any tells whether a server was found that tells where it is.
func (f *finder) any() bool {
	return slices.ContainsFunc(f.servers, func(s *foundServer) bool { return s.host.Length > 0 })
}

// write writes a line for each server.
func (f *finder) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tHOST\tPORT\tTLS\tVERSION\tADDRESSES")
	slices.SortFunc(f.servers, func(a, b *foundServer) int { return strings.Compare(a.instance.String(), b.instance.String()) })
	for _, s := range f.servers {
		if s.host.Length == 0 {
			continue
		}
		name, _, _ := strings.Cut(s.instance.String(), ".")
		addrs := slices.Clone(f.addresses(s.host))
		slices.SortFunc(addrs, netip.Addr.Compare)
		shown := make([]string, len(addrs))
		for i, ip := range addrs {
			shown[i] = ip.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", visible(name), visible(shownName(s.host)), s.port,
			s.value("tls"), s.value("version"), dash(strings.Join(shown, " ")))
	}
	return table.Flush()
}

// value is what a server's text says for a key, such that it does nothing to a
// terminal.
func (s *foundServer) value(key string) string {
	for _, text := range s.text {
		k, v, _ := strings.Cut(text, "=")
		if strings.EqualFold(k, key) {
			shown := []rune(visible(v))
			return dash(string(shown[:min(len(shown), maxFoundText)]))
		}
	}
	return "-"
}

// dash stands for what is empty.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
