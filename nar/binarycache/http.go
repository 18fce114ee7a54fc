package binarycache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// patience is how long a server is waited for, and how often it is asked again.
type patience struct {
	stall    time.Duration // for progress
	progress int64         // bytes that are progress; fewer only at the end of a file
	tries    int           // in a row without progress
	backoff  time.Duration // after the first of them; twice as long after each other one
	longest  time.Duration // that is waited between two
}

var usualPatience = patience{stall: 30 * time.Second, progress: 16 << 10, tries: 6, backoff: 250 * time.Millisecond, longest: 30 * time.Second}

// httpSource is a cache behind a URL.
type httpSource struct {
	base     *url.URL // path ends in a slash
	client   *http.Client
	netrc    netrc
	patience patience
}

// errRedirect is that of a redirect that is not followed.
var errRedirect = errors.New("bad redirect")

func newHTTPSource(base *url.URL, netrc netrc, connections int, p patience) *httpSource {
	base = base.JoinPath("/")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = connections
	transport.MaxConnsPerHost = connections
	transport.ResponseHeaderTimeout = p.stall
	// What is stored is compressed as far as it is to be; what arrives is to be
	// the bytes that are stored, or else a download could not be resumed.
	transport.DisableCompression = true
	client := &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	return &httpSource{base: base, client: client, netrc: netrc, patience: p}
}

// checkRedirect lets credentials go to nobody but the host that they are for.
// (By itself, the client would send them to subdomains, too.)
func checkRedirect(req *http.Request, via []*http.Request) error {
	const maxRedirects = 10
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: the %dth in a row", errRedirect, len(via))
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: from https to %s", errRedirect, req.URL.Scheme)
	}
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

func (s *httpSource) close() { s.client.CloseIdleConnections() }

func (s *httpSource) open(ctx context.Context, name string, size int64) (io.ReadCloser, int64, error) {
	u, err := s.base.Parse(name)
	if err == nil && (u.Host != s.base.Host || u.Opaque != "" || !strings.HasPrefix(u.Path, s.base.Path)) {
		err = fmt.Errorf("%q is not the name of a file in the cache", name)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", s.base.Redacted(), err)
	}
	d := &download{httpSource: s, ctx: ctx, url: u, expected: size, size: -1}
	if err := d.connect(ctx); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return d, d.size, nil
}

// download is a file that is being downloaded. When its connection breaks, it
// asks for the rest.
type download struct {
	*httpSource
	ctx      context.Context
	url      *url.URL
	expected int64 // size of the file, for servers that do not say it; -1 if unknown
	size     int64 // of the file as the server says; -1 if unknown
	etag     string

	offset   int64 // bytes that have arrived
	failures int   // in a row without progress
	progress int64 // bytes since the last failure

	body   io.ReadCloser // nil while there is no connection
	skip   int64         // bytes of body that have arrived before
	cancel context.CancelCauseFunc
	timer  *time.Timer   // cancels when there is no progress
	waited time.Duration // for the bytes of recent
	recent int64
	err    error // for ever
}

// permanentError is one that trying again would not help against.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// retryAfter is a failure whose server says when to come again.
type retryAfter struct {
	error
	delay time.Duration
}

func (e retryAfter) Unwrap() error { return e.error }

// errStalled is the cause of the end of a request that makes no progress.
var errStalled = errors.New("the server stalled")

func (d *download) Read(p []byte) (int, error) {
	for d.err == nil {
		n, err := d.read(p)
		d.offset += int64(n)
		if d.progress += int64(n); d.progress >= 1<<20 {
			d.failures = 0
		}
		if errors.Is(err, io.EOF) && d.size >= 0 && d.offset < d.size {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			d.err = io.EOF
		default:
			d.disconnect()
			if err := d.wait(err); err != nil {
				d.err = fmt.Errorf("%s: %w", d.url.Redacted(), err)
			} else if err := d.connect(d.ctx); err != nil {
				d.err = fmt.Errorf("%s: %w", d.url.Redacted(), err)
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, d.err
}

// read reads from the connection under a deadline, and not what has arrived
// before.
func (d *download) read(p []byte) (int, error) {
	for {
		q := p
		if d.skip > 0 {
			q = p[:min(int64(len(p)), d.skip)]
		}
		start := time.Now()
		d.timer.Reset(d.patience.stall - d.waited)
		n, err := d.body.Read(q)
		d.timer.Stop()
		d.waited += time.Since(start)
		if d.recent += int64(n); d.recent >= d.patience.progress {
			d.recent, d.waited = 0, 0
		}
		if err != nil && !errors.Is(err, io.EOF) && d.ctx.Err() == nil && d.waited >= d.patience.stall {
			err = fmt.Errorf("%w: %d bytes in %v", errStalled, d.recent, d.patience.stall)
		}
		if d.skip == 0 {
			return n, err
		}
		d.skip -= int64(n)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
	}
}

// connect asks for what has not arrived yet, as often as patience has it.
func (d *download) connect(ctx context.Context) error {
	for {
		err := d.request(ctx)
		if err == nil {
			return nil
		}
		d.disconnect()
		if err := d.wait(err); err != nil {
			return err
		}
	}
}

// wait waits after a failure until it is time to try again, or returns an error
// if that is never.
func (d *download) wait(err error) error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	if permanent, ok := errors.AsType[permanentError](err); ok {
		return permanent.error
	}
	d.progress = 0
	if d.failures++; d.failures >= d.patience.tries {
		return fmt.Errorf("%w (tried %d times)", err, d.failures)
	}
	delay := jitter(min(d.patience.backoff<<(d.failures-1), d.patience.longest))
	if after, ok := errors.AsType[retryAfter](err); ok {
		delay = max(delay, min(after.delay, d.patience.longest))
	}
	select {
	case <-time.After(delay):
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

// request makes one request and checks what the server says to it.
func (d *download) request(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	d.cancel = cancel
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url.String(), nil)
	if err != nil {
		return permanentError{err}
	}
	req.Header.Set("User-Agent", "vm-prebuild")
	if c, ok := d.netrc.lookup(d.url.Hostname()); ok && d.url.User == nil {
		req.SetBasicAuth(c.login, c.password)
	}
	if d.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.offset))
		if d.etag != "" {
			req.Header.Set("If-Range", d.etag)
		}
	}
	resp, err := d.client.Do(req) //nolint:bodyclose // disconnect closes it
	if err != nil {
		// The client quotes the method and the URL, which are said already.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		if permanentFailure(err) {
			err = permanentError{err}
		}
		return err
	}
	d.body = resp.Body
	if err := d.accept(resp); err != nil {
		return err
	}
	d.timer = time.AfterFunc(d.patience.stall, func() { cancel(errStalled) })
	d.timer.Stop()
	d.waited, d.recent = 0, 0
	return nil
}

// accept checks a response.
func (d *download) accept(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		d.skip = d.offset
		if err := d.expectSame(resp, resp.ContentLength); err != nil {
			return err
		}
		if d.size = resp.ContentLength; d.size < 0 {
			d.size = d.expected
		}
	case http.StatusPartialContent:
		first, size, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil || first != d.offset {
			return permanentError{fmt.Errorf("asked for bytes from %d on and got Content-Range %q", d.offset, resp.Header.Get("Content-Range"))}
		}
		d.skip = 0
		if err := d.expectSame(resp, size); err != nil {
			return err
		}
	default:
		return statusError(resp)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return permanentError{fmt.Errorf("the server sends it with Content-Encoding %q, which it was not asked for", encoding)}
	}
	d.etag = strongETag(resp)
	return nil
}

// expectSame makes sure that the rest of a file is that of the one whose
// beginning has arrived.
func (d *download) expectSame(resp *http.Response, size int64) error {
	if d.offset == 0 {
		return nil
	}
	if d.size >= 0 && size >= 0 && size != d.size || d.etag != "" && d.etag != strongETag(resp) {
		return permanentError{errors.New("the file has changed while it was downloaded")}
	}
	return nil
}

// strongETag is the ETag by which equal files can be told, or nothing.
func strongETag(resp *http.Response) string {
	if etag := resp.Header.Get("ETag"); strings.HasPrefix(etag, `"`) {
		return etag
	}
	return ""
}

// statusError says what a status other than success means.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server says %s", resp.Status)
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		return permanentError{fs.ErrNotExist}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return permanentError{fmt.Errorf("%w\nhint: put the credentials for this host into a netrc file", err)}
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests,
		code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
		return retryAfter{err, parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return permanentError{err}
}

// parseRetryAfter reads seconds or a date; it returns 0 if s is neither.
func parseRetryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(s); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// parseContentRange reads "bytes FIRST-LAST/SIZE"; size is -1 if it is "*".
func parseContentRange(s string) (first, size int64, err error) {
	var last int64
	bounds, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	if !ok {
		return 0, 0, errors.New("no Content-Range")
	}
	if _, err := fmt.Sscanf(bounds, "%d-%d", &first, &last); err != nil {
		return 0, 0, err
	}
	if total == "*" {
		return first, -1, nil
	}
	size, err = strconv.ParseInt(total, 10, 64)
	if err == nil && (first < 0 || last < first || last != size-1) {
		err = errors.New("bad Content-Range")
	}
	return first, size, err
}

// disconnect gives up the connection.
func (d *download) disconnect() {
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.cancel != nil {
		d.cancel(nil)
	}
	if d.body != nil {
		d.body.Close()
	}
	d.body, d.timer, d.cancel = nil, nil, nil
}

// Close ends the download. What has been read to its end has left its connection
// to the next one.
func (d *download) Close() error {
	d.disconnect()
	if d.err == nil {
		d.err = fs.ErrClosed
	}
	return nil
}
