package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"homeroom/certs"
	"homeroom/mdns"
)

// reachable returns the addresses under which a listener can be reached: the one it
// has, or this machine's where it listens on all.
func reachable(ip net.IP) []string {
	if !ip.IsUnspecified() {
		return []string{ip.String()}
	}
	var hosts []string
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	if len(hosts) == 0 {
		return []string{"127.0.0.1"}
	}
	return hosts
}

// telnetTo is the command that connects to a server.
func telnetTo(host, port string) string { return "telnet " + host + " " + port }

// pageAt is the address of a server's web page.
func pageAt(host, port string) string { return "http://" + net.JoinHostPort(host, port) + "/" }

// addressOf is the IP address of one end of a connection; invalid if it has none.
func addressOf(end net.Addr) netip.Addr {
	ip, ok := end.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Addr{}
	}
	return ip.AddrPort().Addr().Unmap().WithZone("")
}

// localAddress is how a program on this machine reaches a listener.
func localAddress(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return at.String()
	}
	return net.JoinHostPort("", strconv.Itoa(tcp.Port))
}

// pingLine connects to a port of this machine and has a word come back.
func pingLine(at net.Addr, within time.Duration) error {
	conn, err := net.DialTimeout("tcp", localAddress(at), within)
	if err != nil {
		return fmt.Errorf("connecting to the server's own port: %w", err)
	}
	defer conn.Close()
	err = conn.SetDeadline(time.Now().Add(within))
	if err == nil {
		_, err = conn.Write([]byte("#ping watchdog\r\n"))
	}
	if err != nil {
		return fmt.Errorf("speaking to the server's own port: %w", err)
	}
	for in := bufio.NewReader(conn); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("no line comes back from the server's own port: %w", err)
		}
		if strings.HasPrefix(line, "@ret #ping") || strings.HasPrefix(line, "@mess #warning") {
			return nil
		}
	}
}

// publicAddress is an address as others have it; not valid, where it is for this
// machine alone.
func publicAddress(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// waysIn is how each address under which a listener can be reached is written.
func waysIn(listen string, write func(host, port string) string) (ways []string) {
	at, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return []string{listen}
	}
	ip := at.IP
	if ip == nil {
		ip = net.IPv6unspecified
	}
	for _, host := range reachable(ip) {
		ways = append(ways, write(host, strconv.Itoa(at.Port)))
	}
	return ways
}

// listeningText says where the server listens and what to type to get there.
func listeningText(a net.Addr) string {
	return fmt.Sprintf("listening on %s; to connect: %s", a, strings.Join(waysIn(a.String(), telnetTo), " or "))
}

// machineNames are the names and addresses under which this machine is reached, on
// a network or by itself; found is the name by which others find it, if any.
func machineNames(found string) certs.Names {
	n := certs.Names{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}}
	host, _ := os.Hostname() // without one there is still localhost
	n.Hosts = hostNames(host)
	if found != "" && !slices.Contains(n.Hosts, found) {
		n.Hosts = append([]string{found}, n.Hosts...)
	}
	addrs, _ := net.InterfaceAddrs() // without them there is still this machine itself
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := p.Addr().Unmap()
		if !slices.Contains(n.Addrs, ip) && !mdns.Fleeting(ip) {
			n.Addrs = append(n.Addrs, ip)
		}
	}
	return n
}

// hostNames are the names of a machine with this host name.
func hostNames(host string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	short, _, _ := strings.Cut(host, ".")
	var names []string
	for _, name := range []string{host, short, short + ".local", "localhost"} {
		if isHostName(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// isHostName reports whether a certificate can hold it: people call machines all
// sorts of things.
func isHostName(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// parseNetwork reads an address or a network; ok is false for what is neither.
// Connections are known by addresses without zones, and by IPv4 ones where they have
// such: ::ffff:a.b.c.d is a.b.c.d, in networks too.
func parseNetwork(word string) (p netip.Prefix, ok bool) {
	if addr, err := netip.ParseAddr(word); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	p, err := netip.ParsePrefix(word)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= mappedBits {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	return p, err == nil && !p.Addr().Is4In6()
}

// mappedBits is how many bits come before an IPv4 address that is written as an IPv6 one.
const mappedBits = 96
