package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What is kept of all that others may send.
const (
	maxFound      = 256 // servers, hosts
	maxFoundAddrs = 16  // of a host
)

// server is a service that others have told of.
type server struct {
	instance dnsmessage.Name
	host     dnsmessage.Name // of length 0: not known yet
	port     uint16
	text     []string
	told     bool // its text is known
}

// host is a machine that others have told of.
type host struct {
	name  dnsmessage.Name
	addrs []netip.Addr
}

// finder gathers the services of one type from answers.
type finder struct {
	kind    dnsmessage.Name
	servers []*server
	hosts   []*host
}

// Entry is a service that was found.
type Entry struct {
	Instance, Host string // as others wrote them: anything
	Port           uint16
	Text           []string
	Addrs          []netip.Addr
}

// Browse asks everybody on the network for services of a type, such as
// _http._tcp, until ctx ends, and returns those that told where they are, in the
// order of their names.
func Browse(ctx context.Context, kind string) ([]Entry, error) {
	s, err := openSockets(slog.Default())
	if err != nil {
		return nil, fmt.Errorf("asking the network: %w", err)
	}
	defer s.close()
	links := s.links(func(netip.Addr) bool { return true })
	if len(links) == 0 {
		return nil, errors.New("this machine is on no network: no interface is up that has an address")
	}
	f := newFinder(kind)
	for pause := time.Second; ; pause *= 2 {
		packet, err := f.question()
		if err != nil {
			return nil, fmt.Errorf("asking the network: %w", err)
		}
		for _, l := range links {
			s.send(l, netip.AddrPort{}, packet)
		}
		if !f.listen(ctx, s.packets, links, pause) {
			return f.entries(), nil
		}
	}
}

// newFinder makes a finder of services of a type.
func newFinder(kind string) *finder { return &finder{kind: dnsName(kind + ".local.")} }

// listen takes answers for a time, and reports whether to ask again.
func (f *finder) listen(ctx context.Context, packets <-chan datagram, links []link, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case p := <-packets:
			i := slices.IndexFunc(links, func(l link) bool { return l.index == p.index && l.v6 == p.v6 })
			if i < 0 || p.from.Port() != Port || !links[i].isNear(p.from.Addr()) {
				continue
			}
			if m, err := parse(p.data); err == nil && m.response {
				f.hear(m.records(), links[i].name)
			}
		}
	}
}

// question packs a question for services, and for the records that are missing of
// those that were found.
func (f *finder) question() ([]byte, error) {
	const most = 5 // questions, so that a packet holds them however long the names are
	m := dnsmessage.Message{Questions: []dnsmessage.Question{question(f.kind, dnsmessage.TypePTR)}}
	for _, s := range f.servers {
		if len(m.Questions) > most {
			break
		}
		switch {
		case s.host.Length == 0 || !s.told:
			m.Questions = append(m.Questions, question(s.instance, dnsmessage.TypeALL))
		case len(f.addresses(s.host)) == 0:
			m.Questions = append(m.Questions, question(s.host, dnsmessage.TypeA), question(s.host, dnsmessage.TypeAAAA))
		}
	}
	return m.Pack()
}

// hear keeps the records of an answer that came in by an interface.
func (f *finder) hear(said []dnsmessage.Resource, iface string) {
	for _, r := range said { // first, so that the others have somewhere to go
		if ptr, ok := r.Body.(*dnsmessage.PTRResource); ok && inNet(r.Header.Class) && sameName(r.Header.Name, f.kind) {
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

// heardServer keeps a service's name, or forgets it where the service has gone.
func (f *finder) heardServer(instance dnsmessage.Name, ttl uint32) {
	if ttl == 0 {
		f.servers = slices.DeleteFunc(f.servers, func(s *server) bool { return sameName(s.instance, instance) })
	} else if f.server(instance) == nil && len(f.servers) < maxFound {
		f.servers = append(f.servers, &server{instance: instance})
	}
}

// heardAddress keeps an address of a host, or forgets it.
func (f *finder) heardAddress(name dnsmessage.Name, ip netip.Addr, ttl uint32) {
	i := slices.IndexFunc(f.hosts, func(h *host) bool { return sameName(h.name, name) })
	if i < 0 {
		if ttl == 0 || len(f.hosts) == maxFound {
			return
		}
		i = len(f.hosts)
		f.hosts = append(f.hosts, &host{name: name})
	}
	h := f.hosts[i]
	if ttl == 0 {
		h.addrs = slices.DeleteFunc(h.addrs, func(a netip.Addr) bool { return a == ip })
	} else if !slices.Contains(h.addrs, ip) && len(h.addrs) < maxFoundAddrs {
		h.addrs = append(h.addrs, ip)
	}
}

// server finds a service by its name; nil: nobody has told of it.
func (f *finder) server(instance dnsmessage.Name) *server {
	for _, s := range f.servers {
		if sameName(s.instance, instance) {
			return s
		}
	}
	return nil
}

// addresses returns the addresses of a host that are known.
func (f *finder) addresses(host dnsmessage.Name) []netip.Addr {
	for _, h := range f.hosts {
		if sameName(h.name, host) {
			return h.addrs
		}
	}
	return nil
}

// entries returns the services whose host is known, by name.
func (f *finder) entries() (all []Entry) {
	slices.SortFunc(f.servers, func(a, b *server) int { return strings.Compare(a.instance.String(), b.instance.String()) })
	for _, s := range f.servers {
		if s.host.Length == 0 {
			continue
		}
		name, _, _ := strings.Cut(s.instance.String(), ".")
		addrs := slices.Clone(f.addresses(s.host))
		slices.SortFunc(addrs, netip.Addr.Compare)
		all = append(all, Entry{name, shownName(s.host), s.port, s.text, addrs})
	}
	return all
}
