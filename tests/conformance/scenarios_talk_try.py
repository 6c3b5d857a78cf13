import contextlib, socket
from raw_client import Client, Connection, Answer
import websockets

def st(a): return None if a is None else (a.status, a.body[:30])
TALKS = {}
def talk(f=None, name=None):
    def deco(g):
        TALKS[name or g.__name__] = g
        return g
    return deco(f) if f else deco
def simple(name, *a, **k):
    TALKS[name] = lambda c: st(c.ask(*a, **k))
simple('read','/read?a=1')
simple('write','/echo',method='POST',body=b'12345')
simple('write large','/echo',method='POST',body=b'x'*300000)
TALKS['chunked']=lambda c: st(c.exchange(c.head('/echo',b'Transfer-Encoding: chunked',method='POST')+b'3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n'))
TALKS['expect']=lambda c: st(c.exchange(c.head('/echo',b'Expect: 100-continue',b'Content-Length: 2',method='POST')+b'ab'))
simple('head','/read',method='HEAD')
for s in (204,304,401,403,404,500,503): simple(f's{s}',f'/status?status={s}')
simple('starlette 404','/starlette/nothing'); simple('starlette 405','/starlette/form'); simple('starlette item','/starlette/items/42'); simple('starlette broken','/starlette/broken')
for n in ('raise-before','raise-after-start','raise-in-body','raise-after-body','stop-in-body','never','stream','cookies','pathsend','trailers'): simple(n,'/'+n)
@talk
def background(c):
    import time
    t=time.monotonic(); a=c.ask('/starlette/background'); return st(a), round(time.monotonic()-t,3)
def leave(path, reset=False, release=False):
    def g(c):
        with c.connect() as k:
            k.send(c.head(path)); c.control('reached')
            if reset: k.reset()
        if release: c.control('release')
    return g
TALKS['hang']=leave('/hang'); TALKS['hang reset']=leave('/hang',True); TALKS['late']=leave('/late'); TALKS['deaf']=leave('/deaf',release=True)
@talk
def gone_at_once(c):
    with c.connect() as k:
        k.send(c.head('/hang')); k.reset()
@talk
def sse(c):
    with c.connect() as k:
        k.send(c.head('/starlette/events')); k.read_until(b'tick')
@talk
def sse_reset(c):
    with c.connect() as k:
        k.send(c.head('/starlette/events')); k.read_until(b'tick'); k.reset()
@talk
def half_close(c):
    with c.connect() as k:
        k.send(c.head('/echo',b'Content-Length: 2',method='POST')+b'ab'); k._socket.shutdown(socket.SHUT_WR)
        return st(k.read_answer())
@talk
def half_close_hang(c):
    with c.connect() as k:
        k.send(c.head('/deaf')); c.control('reached'); k._socket.shutdown(socket.SHUT_WR)
        c.control('release')
        return st(k.read_answer())
@talk
def upload_cut(c):
    with c.connect() as k:
        k.send(c.head('/starlette/form',b'Content-Length: 1000',method='POST')+b'0123456789'); c.control('reached')
@talk
def upload_cut_raw(c):
    with c.connect() as k:
        k.send(c.head('/echo',b'Content-Length: 1000',method='POST')+b'0123456789')
@talk
def unread_upload(c):
    with c.connect() as k:
        k.send(c.head('/read',b'Content-Length: 1000',method='POST')+b'0123456789'); return st(k.read_answer())
simple('dup headers','/read',b'Accept: a',b'Accept: b',b'Cookie: a=1',b'Cookie: b=2')
for n,v in {'ff':b'\xff\x80','bs':b'\xff\\x','01':b'\x01','7f':b'\x7f','nul':b'\0','tab':b'a\tb','empty':b''}.items(): simple('header '+n,'/read',b'Referer: '+v)
simple('header name _','/read',b'x_a: 1'); simple('header name empty','/read',b': 1'); simple('header folded','/read',b'accept: a\r\n b')
for t in ('/%00','/%ff','/%ed%a0%80','/a%2fb','/caf%C3%A9','/a b',b'/\xff',b'/caf\xc3\xa9','/read?%ff%zz&&=','/read?a=%00', b'/read?\xff','//read','/read//','/a/../read','/read#x','/read;a=1','/"<>\\^`{|}','*','','http://example.org/read?x=1','HTTP://u:p@example.org/read','/'+'x'*8000,'/read?'+'x'*60000, '/%', '/read??a', 'read'):
    simple('target %r'%(t if len(t)<50 else t[:20]+'...%d'%len(t)), t)
simple('options *','*',method='OPTIONS'); simple('connect','example.org:443',method='CONNECT')
simple('1000 headers','/read',*[b'x-%d: 1'%i for i in range(1000)])
simple('80 headers','/read',*[b'x-%d: 1'%i for i in range(80)])
simple('70KB header','/read',b'x-a: '+b'x'*70000)
simple('8KB header','/read',b'x-a: '+b'x'*8000)
for m in ('FOO','get','M'*200,'PROPFIND','G-T','G T','TRACE','PATCH', 'QUERY'): simple('method '+m[:10],'/read',method=m)
TALKS['http1.0']=lambda c: st(c.exchange(b'GET /read HTTP/1.0\r\nx-request-id: '+c.request_id.encode()+b'\r\n\r\n'))
TALKS['http1.1 no host']=lambda c: st(c.exchange(b'GET /read HTTP/1.1\r\nx-request-id: '+c.request_id.encode()+b'\r\n\r\n'))
TALKS['http0.9']=lambda c: st(c.exchange(b'GET /read\r\n\r\n'))
TALKS['http1.2']=lambda c: st(c.exchange(c.head('/read',version='1.2')))
simple('dup host','/read',b'Host: other'); simple('dup host same','/read',b'Host: 127.0.0.1')
TALKS['bad host']=lambda c: st(c.exchange(b'GET /read HTTP/1.1\r\nHost: a b@/\r\nx-request-id: '+c.request_id.encode()+b'\r\n\r\n'))
TALKS['cl+te']=lambda c: st(c.exchange(c.head('/echo',b'Content-Length: 3',b'Transfer-Encoding: chunked',method='POST')+b'3\r\nabc\r\n0\r\n\r\n'))
TALKS['dup cl']=lambda c: st(c.exchange(c.head('/echo',b'Content-Length: 3',b'Content-Length: 4',method='POST')+b'abcd'))
TALKS['get body']=lambda c: st(c.ask('/echo',body=b'abc'))
TALKS['garbage']=lambda c: st(c.exchange(b'\x16\x03\x01\r\n\r\n'))
TALKS['bad chunk']=lambda c: st(c.exchange(c.head('/echo',b'Transfer-Encoding: chunked',method='POST')+b'zz\r\nabc\r\n0\r\n\r\n'))
@talk
def pipelined(c):
    with c.connect() as k:
        k.send(c.head('/read')+c.head('/status?status=404')+c.head('/read'))
        return [st(k.read_answer()) for _ in range(3)]
@talk
def keep_alive(c):
    with c.connect() as k:
        r=[]
        for t in ('/read','/status?status=404'):
            k.send(c.head(t)); r.append(st(k.read_answer()))
        return r
def ws(f):
    def g(c):
        try: return f(c)
        except websockets.InvalidStatus as e: return e.response.status_code, e.response.body
        except websockets.ConnectionClosed as e: return repr(e)
        except Exception as e: return repr(e)
    TALKS[f.__name__]=g
@ws
def ws_echo(c):
    with c.websocket('/ws/echo') as w:
        w.send('hé'); r=w.recv(); w.send(b'123'); r2=w.recv()
    return r,r2,w.close_code
@ws
def ws_4001(c):
    with c.websocket('/ws/echo') as w:
        w.close(4001,'because')
    return w.close_code
@ws
def ws_nocode(c):
    with c.websocket('/ws/echo') as w:
        w.send('a'); w.recv()
        # empty close frame
        w.socket.sendall(b'\x88\x80\0\0\0\0')
        w.recv()
@ws
def ws_abort(c):
    with c.websocket('/ws/echo') as w:
        w.send('a'); w.recv()
        w.socket.shutdown(socket.SHUT_RDWR)
        w.socket.close()
for code in (1000,1001,1008,1011,4002):
    def f(c,code=code):
        with c.websocket(f'/ws/close?code={code}&reason=why') as w:
            w.recv()
            try: w.recv()
            except websockets.ConnectionClosed as e: return repr(e)
    f.__name__=f'ws_close_{code}'; ws(f)
for n in ('refuse','deny','raise-before','return-before'):
    def f(c,n=n):
        with c.websocket('/ws/'+n) as w: pass
        return 'accepted'
    f.__name__='ws_'+n; ws(f)
for n in ('raise-after','return-after'):
    def f(c,n=n):
        with c.websocket('/ws/'+n) as w:
            w.recv()
            try: w.recv()
            except websockets.ConnectionClosed as e: return repr(e)
    f.__name__='ws_'+n; ws(f)
@ws
def ws_sub(c):
    with c.websocket('/ws/echo',subprotocols=['a','b']) as w: return w.subprotocol
@ws
def ws_room(c):
    with c.websocket('/starlette/rooms/blue') as w: w.send('a'); return w.recv()
@ws
def ws_404(c):
    with c.websocket('/starlette/nothing') as w: pass
@ws
def ws_many(c):
    with c.websocket('/ws/echo') as w:
        for i in range(2000): w.send('x'*10); w.recv()
@ws
def ws_big(c):
    with c.websocket('/ws/echo') as w:
        w.send('x'*900000); return len(w.recv())
@ws
def ws_fragments(c):
    with c.websocket('/ws/echo') as w:
        w.send(['ab','cd','ef']); return w.recv()
@ws
def ws_protocol_error(c):
    with c.websocket('/ws/echo') as w:
        w.send('a'); w.recv()
        w.socket.sendall(b'\xff\xff\xff\xff')
        w.recv()
@ws
def ws_bad_utf8(c):
    with c.websocket('/ws/echo') as w:
        w.send(b'\xff\xfe', text=True); w.recv()
