package binarycache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vm-prebuild/nar/internal/nartest"
)

// hasty waits for nothing long, so that tests of failures are short.
var hasty = patience{stall: 300 * time.Millisecond, progress: 1000, tries: 4, backoff: time.Millisecond, longest: 20 * time.Millisecond}

func openHTTP(t *testing.T, server *httptest.Server, n netrc, p patience) *Cache {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cache{name: server.URL, source: newHTTPSource(u, n, 4, p), connections: 4}
	t.Cleanup(c.Close)
	return c
}

// httpCache writes a cache whose first archive is large.
func httpCache(t *testing.T, n, large int) (*nartest.Store, string) {
	t.Helper()
	s := nartest.NewStore(t, n, large)
	dir := t.TempDir()
	mustWrite(t, options(s, dir))
	return s, dir
}

// fetch unpacks the closure of the last path.
func fetch(t *testing.T, s *nartest.Store, c *Cache) error {
	t.Helper()
	if err := c.checkInfo(t.Context()); err != nil {
		return err
	}
	infos, err := c.Closure(t.Context(), []string{s.Infos[len(s.Infos)-1].HashPart()})
	if err != nil {
		return err
	}
	to := nartest.OpenDir(t)
	for _, info := range infos {
		name := path.Base(info.StorePath)
		if err := c.Unpack(t.Context(), info, to, name); err != nil {
			return err
		}
		nartest.Check(t, info, filepath.Join(to.Name(), name))
	}
	return nil
}

func TestHTTP(t *testing.T) {
	s, dir := httpCache(t, 30, 5<<20)
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.StripPrefix("/some/cache", http.FileServer(http.Dir(dir))))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	c, err := Open(t.Context(), server.URL+"/some/cache", Options{Connections: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := fetch(t, s, c); err != nil {
		t.Error(err)
	}
	if n := connections.Load(); n > 4 {
		t.Errorf("%d connections, want at most 4", n)
	}
	if _, err := c.HashParts(t.Context()); !errors.Is(err, ErrNoListing) {
		t.Errorf("listing: %v", err)
	}
	if _, err := c.NarInfo(t.Context(), strings.Repeat("a", 32)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a path that is not there: %v", err)
	}
	if _, err := Open(t.Context(), server.URL+"/elsewhere", Options{}); err == nil || !strings.Contains(err.Error(), "this is not a binary cache") {
		t.Errorf("not a cache: %v", err)
	}
}

// flaky are ways in which a server fails at first, for each file.
var flaky = map[string]func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler){
	"503": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		if tried < 2 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		serve.ServeHTTP(w, r)
	},
	"429": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		if tried == 0 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		serve.ServeHTTP(w, r)
	},
	"dropped connection": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		if tried == 0 {
			panic(http.ErrAbortHandler)
		}
		serve.ServeHTTP(w, r)
	},
	"drops in the body": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		if tried < 3 {
			w = &dropping{w, 400_000}
		}
		serve.ServeHTTP(w, r)
	},
	"drops in the body, no ranges": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		r.Header.Del("Range")
		if tried < 2 {
			w = &dropping{w, 400_000}
		}
		serve.ServeHTTP(w, r)
	},
	"stalls": func(w http.ResponseWriter, r *http.Request, tried int, serve http.Handler) {
		if tried == 0 {
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		serve.ServeHTTP(w, r)
	},
}

// dropping breaks the connection after so many bytes.
type dropping struct {
	http.ResponseWriter
	left int
}

func (d *dropping) Write(p []byte) (int, error) {
	if len(p) > d.left {
		_, _ = d.ResponseWriter.Write(p[:d.left])
		_ = http.NewResponseController(d.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	d.left -= len(p)
	return d.ResponseWriter.Write(p)
}

func TestFlakyServer(t *testing.T) {
	s, dir := httpCache(t, 4, 1<<20)
	for name, handle := range flaky {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			tries := map[string]int{}
			served := map[string]string{}
			serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served[r.URL.Path] = r.Header.Get("Range")
				http.ServeFile(w, r, filepath.Join(dir, r.URL.Path))
			})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				tried := tries[r.URL.Path]
				tries[r.URL.Path]++
				// A server that stalls must not keep the others waiting.
				if name == "stalls" {
					mu.Unlock()
					defer mu.Lock()
				}
				handle(w, r, tried, serve)
			}))
			defer server.Close()
			if name == "stalls" { // the x that it begins with makes those files wrong
				c := openHTTP(t, server, nil, hasty)
				_, err := c.read(t.Context(), cacheInfoFile, maxCacheInfo)
				if err == nil || !strings.Contains(err.Error(), "changed while it was downloaded") {
					t.Errorf("got %v", err)
				}
				if text, err := c.read(t.Context(), cacheInfoFile, maxCacheInfo); err != nil || text != "StoreDir: /nix/store\n" {
					t.Errorf("got %q, %v", text, err)
				}
				return
			}
			if err := fetch(t, s, openHTTP(t, server, nil, hasty)); err != nil {
				t.Error(err)
			}
			resumed := false
			for _, r := range served {
				resumed = resumed || r != ""
			}
			if name == "drops in the body" && !resumed {
				t.Error("the download was not resumed")
			}
		})
	}
}

// What a server never gets right ends in one error that says what.
func TestBadServer(t *testing.T) {
	s, dir := httpCache(t, 2, 100_000)
	files := http.FileServer(http.Dir(dir))
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc // of archives
		want   string
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "the server says 500 Internal Server Error (tried 4 times)"},
		{"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "401 Unauthorized\nhint: put the credentials"},
		{"418", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, "418 I'm a teapot"},
		{"404", http.NotFound, "no such file, although"},
		{"drops at once", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF (tried 4 times)"},
		{"slow", func(w http.ResponseWriter, r *http.Request) {
			data, _ := os.ReadFile(filepath.Join(dir, r.URL.Path))
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			for i := 0; r.Context().Err() == nil; i++ {
				_, _ = w.Write(data[i : i+1])
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}, "stalled"},
		{"too short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			hijackHalf(w, filepath.Join(dir, r.URL.Path))
		}, "unexpected EOF"},
		{"wrong length", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1234)) }, "it has 1234 bytes, its narinfo says"},
		{"wrong bytes", func(w http.ResponseWriter, r *http.Request) {
			info, _ := os.Stat(filepath.Join(dir, r.URL.Path))
			_, _ = w.Write(make([]byte, info.Size()))
		}, "decompress zstd"},
		{"encoded", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			files.ServeHTTP(w, r)
		}, `Content-Encoding "br"`},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "bad redirect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/nar/") {
					tt.handle(w, r)
					return
				}
				files.ServeHTTP(w, r)
			}))
			defer server.Close()
			start := time.Now()
			err := fetch(t, s, openHTTP(t, server, nil, hasty))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Names that have another scheme, or lead elsewhere, are not asked for.
func TestNamesStayInTheCache(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	c := openHTTP(t, server, nil, hasty)
	c.source.(*httpSource).base = c.source.(*httpSource).base.JoinPath("below/")
	for _, name := range []string{"file:x", "http:x", "//example.org/x", "/x", "../x", "http://example.org/below/x"} {
		if _, err := c.read(t.Context(), name, 10); err == nil || !strings.Contains(err.Error(), "is not the name of a file in the cache") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hijackHalf sends half a file without saying how long it is.
func hijackHalf(w http.ResponseWriter, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\n\r\n%s", data[:len(data)/2])
}

// A file that changes between two requests for it is not put together.
func TestChangingFile(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version := n.Add(1)
		w.Header().Set("ETag", strconv.Quote(fmt.Sprint(version)))
		http.ServeContent(&dropping{w, 10_000}, r, "", time.Time{}, strings.NewReader(strings.Repeat(fmt.Sprint(version), 50_000)))
	}))
	defer server.Close()
	_, err := openHTTP(t, server, nil, hasty).read(t.Context(), "file", 1<<20)
	if err == nil || !strings.Contains(err.Error(), "changed while it was downloaded") {
		t.Errorf("got %v", err)
	}
}

func TestNetrcIsForItsHost(t *testing.T) {
	_, dir := httpCache(t, 1, 1000)
	files := http.FileServer(http.Dir(dir))
	var got sync.Map // of "host path": Authorization
	note := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got.Store(r.Host+r.URL.Path, r.Header.Get("Authorization"))
			next.ServeHTTP(w, r)
		})
	}
	other := httptest.NewServer(note(files))
	defer other.Close()
	server := httptest.NewServer(note(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/there/"); ok {
			http.Redirect(w, r, "/"+rest, http.StatusFound)
			return
		}
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
	})))
	defer server.Close()
	c := openHTTP(t, server, netrc{"127.0.0.1": {"me", "secret"}}, hasty)
	if _, err := c.read(t.Context(), "there/nix-cache-info", maxCacheInfo); err != nil {
		t.Fatal(err)
	}
	host, otherHost := strings.TrimPrefix(server.URL, "http://"), strings.TrimPrefix(other.URL, "http://")
	for key, want := range map[string]bool{host + "/there/nix-cache-info": true, host + "/nix-cache-info": true, otherHost + "/nix-cache-info": false} {
		authorization, ok := got.Load(key)
		if !ok || (authorization != "") != want {
			t.Errorf("%s: credentials %q, want some: %v", key, authorization, want)
		}
	}
}

func TestNoDowngrade(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	server := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer server.Close()
	c := openHTTP(t, server, nil, hasty)
	c.source.(*httpSource).client.Transport = server.Client().Transport
	if err := c.checkInfo(t.Context()); err == nil || !strings.Contains(err.Error(), "bad redirect: from https to http") {
		t.Errorf("got %v", err)
	}
}

// A certificate that nobody knows is not asked about again and again.
func TestUnknownCertificate(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	err := openHTTP(t, server, nil, hasty).checkInfo(t.Context())
	if err == nil || strings.Contains(err.Error(), "tried") || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestHTTPEndsWithContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := openHTTP(t, server, nil, usualPatience).checkInfo(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestHTTPLies(t *testing.T) {
	for i, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			dir, part := lyingCache(t, i)
			server := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer server.Close()
			checkLie(t, i, server.URL, part)
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := parseRetryAfter(s, now); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
