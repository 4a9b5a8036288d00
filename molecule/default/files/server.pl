# Says what it was told to say, to whoever connects.
use strict;
use warnings;
use IO::Socket::INET;

open my $file, '<', '/etc/airlift/demo/text' or die $!;
my $text = <$file>;
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1) or die $!;
$SIG{PIPE} = 'IGNORE';
print STDERR "listening\n";
while (my $client = $server->accept) {
    print $client "HTTP/1.0 200 OK\r\nContent-Length: " . length($text) . "\r\n\r\n$text";
    close $client;
}
